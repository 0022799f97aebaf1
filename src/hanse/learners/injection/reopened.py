"""A saved adapter, opened again as its readers will do it, before a run counts as finished."""

import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor
from torch.nn import Module, Parameter

from hanse.errors import UserError
from hanse.learners.backbone import Backbone
from hanse.learners.injection.adapter_files import kinds, read
from hanse.learners.injection.adapter_layout import WEIGHTS
from hanse.learners.injection.attached_adapter import PROMPT
from hanse.learners.training.batches import Batch, to_device
from hanse.tensors.named import refuse_unlike

log = logging.getLogger(__name__)

SMALL = 200_000_000  # parameters up to which the base model is copied, so that outputs are compared
NEAR = 1e-2  # of the largest output: more than rounding is, and less than a wrong scaling
WRAPPED = ("base_layer", "original_module")  # the names by which PEFT keeps what it has wrapped
DEFAULT = "default"  # PEFT's name for an adapter


def check(folder: Path, backbone: Backbone, batch: Batch | None, wanted: Tensor | None) -> None:
    """Raise UserError unless PEFT, and `adapter.from`, can open the adapter in a folder.

    Names and shapes are compared with a base model without numbers, which takes no memory. If the
    base model is small, it is copied, and PEFT's outputs are compared with those of training.
    wanted: what the trained model makes of the batch; None: nothing is compared.
    """
    bare = partial(_copied if backbone.weights <= SMALL else _empty, backbone.model)
    try:
        _empty(backbone.model)
    except Exception as error:  # of code that may be anybody's, and says nothing of the adapter
        _unchecked("its base model cannot be made without weights", error)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it is about was said when training began
            opened = _opened(folder, bare())
            _read(folder, bare(), backbone)
    except NotImplementedError as error:  # of an operation that needs numbers
        _unchecked("that would take the base model twice", error)
        return
    except Exception as error:  # whatever it is, nobody else could use the adapter
        said = _line(error) or type(error).__name__
        raise UserError(f"the saved adapter cannot be opened again: {said:.400}.") from error
    whole = not any(tensor.is_meta for tensor in _named(opened).values())
    if batch is not None and wanted is not None and whole and not backbone.bf16:
        _refuse_other(opened, backbone, batch, wanted)


def _unchecked(why: str, error: Exception) -> None:
    log.warning("the saved adapter was not opened again: %s (%.200s)", why, _line(error))


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _empty(model: PeftModel) -> Module:
    """The base model without adapters, and without numbers."""
    base: Any = model.get_base_model()
    with torch.device("meta"):
        bare: Module = type(base)(base.config)
    return bare.eval()


def _copied(model: PeftModel) -> Module:
    """The same with a copy of its weights; without numbers where these are quantized."""
    bare = _empty(model)
    live = {
        ".".join(part for part in name.split(".") if part not in WRAPPED): tensor
        for name, tensor in _named(model.get_base_model()).items()
    }
    copies: dict[int, Any] = {}  # by the original's identity, since embeddings may be the output
    for name, empty in _named(bare).items():
        if name not in live or not _alike(live[name], empty):
            return _empty(model)
        place, _, own = name.rpartition(".")
        if (key := id(live[name])) not in copies:
            copy = live[name].detach().clone()
            copies[key] = Parameter(copy, False) if isinstance(empty, Parameter) else copy
        setattr(bare.get_submodule(place), own, copies[key])
    return bare


def _alike(live: Tensor, empty: Tensor) -> bool:
    """Whether a tensor is what it is in the base model as it was published: not quantized."""
    plain = type(live.data) is Tensor and live.is_floating_point() == empty.is_floating_point()
    return plain and live.shape == empty.shape


def _named(model: Module) -> dict[str, Tensor]:
    """All parameters and buffers of a model by name."""
    return dict(
        [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
    )


def _opened(folder: Path, bare: Module) -> PeftModel:
    """The adapter on this base model, by PEFT; raises ValueError if it lacks something.

    Several kinds are loaded one after another, so that each is put around those before it.
    """
    how: dict[str, Any] = {"low_cpu_mem_usage": any(t.is_meta for t in _named(bare).values())}
    how |= {"torch_device": "cpu", "autocast_adapter_dtype": False}
    return [_loaded(place, bare, how) for place in kinds(folder)][-1].eval()


def _loaded(folder: Path, bare: Module, how: dict[str, Any]) -> PeftModel:
    """One kind, put into this base model by PEFT."""
    opened = PeftModel.from_pretrained(bare, str(folder), **how)
    found = opened.load_adapter(str(folder), DEFAULT, **how)
    named, missing = _named(opened), set(found.missing_keys)
    there = {id(tensor) for name, tensor in named.items() if name not in missing}
    # Read by other means, or written by PEFT under a name of its own, too.
    known = {PROMPT, *(name.replace(f".{DEFAULT}", "") for name in _twice(folder))}
    strange = [name for name in found.missing_keys if id(named.get(name)) not in there]
    strange += [name for name in found.unexpected_keys if name not in known]
    if strange:
        raise ValueError(f"PEFT and the file do not agree about {strange[0]}")
    return opened


def _twice(folder: Path) -> list[str]:
    with safe_open(folder / WEIGHTS, "pt") as file:
        return [name for name in file.keys() if f".{DEFAULT}." in name]  # noqa: SIM118


def _read(folder: Path, bare: Module, backbone: Backbone) -> None:
    """Read the adapter as `adapter.from` does; raises UserError if it does not fit the model."""
    settings, tensors = read(folder)
    again = Backbone("", bare, None, backbone.device, False, backbone.head, backbone.fresh)
    again.activation_cache = False
    live = again.parameters(again.attach(settings, 0))
    refuse_unlike(live, {name: tensor for name, tensor in tensors.items() if name in live})


def _refuse_other(opened: PeftModel, backbone: Backbone, batch: Batch, wanted: Tensor) -> None:
    known = torch.tensor(batch.lengths)
    with torch.no_grad():
        found = backbone.head.logits(
            opened, *to_device((batch.ids, batch.at, known), backbone.device)
        )
    error, most = (float(t.abs().max()) for t in (found.float() - wanted, wanted))
    if not error <= NEAR * most:
        raise UserError(
            f"the saved adapter says other things than the trained one: with PEFT an output of "
            f"at most {most:.3g} differs by {error:.3g}."
        )
