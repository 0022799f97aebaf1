"""The likeness of an emulator's middle to the whole model's: a number, and a sentence about it."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module
from transformers.pytorch_utils import Conv1D

from hanse import registry
from hanse.learners.models.emulators.compressor import FOLDER
from hanse.learners.models.emulators.record import EmulatorRecord
from hanse.learners.models.emulators.shrink import Emulator
from hanse.learners.models.emulators.stand_ins import CodedLinear, FactoredLinear, matrix
from hanse.learners.models.layers import layer_list


@torch.no_grad()
def difference(whole: Any, emulator: Emulator) -> float:
    """‖W - Ŵ‖/‖W‖ over all matrices of an emulator's middle, in Frobenius norms.

    W: matrices of the whole model's layers that the middle was made of; Ŵ: the emulator's. Layers
    that were left out do not count. 0: the middle has them as they are.
    """
    layers, cut = layer_list(whole)[1], emulator.cut
    numbers = emulator.layers[cut.bottom : len(emulator.layers) - cut.top]
    away = total = 0.0
    for number, layer in zip(numbers, emulator.middle, strict=True):
        for name, module in layers[number].named_modules():
            for before, after in _matrices(module, layer.get_submodule(name)):
                away += float((before.float() - after.float()).square().sum())
                total += float(before.float().square().sum())
    return math.sqrt(away / total) if total else 0.0


def sentence(entry: EmulatorRecord, of: str = "") -> str:
    """A sentence, without a full stop, on what an emulator's middle shows of the whole model.

    of: the emulator's name, for a reader who has not just made it.
    """
    name = next((name for name in entry.compressor if name in registry.names(FOLDER)), None)
    if name is None:
        return "the emulator's compressor is not known here, so its middle may be the whole model's"
    shown = registry.find(FOLDER, name).discloses  # type: ignore[attr-defined]
    moved = "" if entry.distillation is None else " but for a distillation"
    text = f"the middle{of and f' of {of}'} has {shown}{moved}, which every client sees"
    if entry.middle_error:
        text += f"; its matrices are {entry.middle_error:.2g} of their norm away from the model's"
    if name != "layer_drop":
        return f"{text}; layer_drop leaves layers out"
    return text if moved else f"{text}; `hanse emulator --texts` changes them"


def _matrices(module: Module, other: Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a module's own matrices and those of the module in its place."""
    if isinstance(module, (Linear, Conv1D)):
        yield matrix(module), _dense(other)
        return
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.dim() > 1:
            yield parameter, getattr(other, name)


def _dense(layer: Module) -> Tensor:
    """The matrix (out, in) that a linear layer or a module in its place multiplies by."""
    if isinstance(layer, CodedLinear):
        return layer.decoded(torch.float32)
    if isinstance(layer, FactoredLinear):
        return layer.up.float() @ layer.down.float()
    return matrix(layer)
