"""Base weights of 8 or 4 bits: a quarter or an eighth of float32's memory.

int8: a scale for each row of a matrix (torchao). nf4: four bits that are spaced like a normal
distribution, a scale for each 64 weights, itself quantized (Dettmers et al. 2023, 2305.14314;
bitsandbytes). Products are computed in the model's precision from unpacked weights. Adapters are
not quantized.
"""

import importlib.util
import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from transformers import BitsAndBytesConfig, TorchAoConfig

from hanse.errors import UserError
from hanse.learners.models.head import Head
from hanse.learners.models.pretrained import LoadedModel, PretrainedModel
from hanse.learners.models.settings import Quantization

LIBRARIES = {"int8": ("torchao", "accelerate"), "nf4": ("bitsandbytes", "accelerate")}
EXACT = 0.1  # the largest relative error of a gradient; that of bfloat16 is far smaller


def load(
    source: PretrainedModel,
    head: Head,
    kind: Quantization,
    dtype: torch.dtype,
    device: torch.device,
) -> LoadedModel:
    """Load a model with frozen weights of this kind, and its tokenizer.

    Raises UserError if the weights cannot be quantized, or let no gradients through to adapters.
    """
    options = {} if kind == "none" else _options(source, kind, dtype, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the libraries' own calls
        loaded = source.load(
            head.auto, dtype, fresh=not head.generates_text, **head.options, **options
        )
    model = loaded.model
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if getattr(model, "hf_quantizer", None) is not None:
        _let_gradients_through(model, source.name, kind)
    return loaded


def count(weight: Tensor) -> int:
    """The number of weights in a tensor, also if several are packed into a byte."""
    state = getattr(weight, "quant_state", None)
    numbers: int = getattr(weight, "numbers", weight.numel())  # of an emulator's codes
    return numbers if state is None else math.prod(state.shape)


def packed(layer: Module) -> bool:
    """True if a layer's weights are quantized: then they are of a library's own class."""
    weight = getattr(layer, "weight", None)
    return isinstance(weight, Tensor) and type(weight) not in (Tensor, Parameter)


def unpacked(model: Any) -> Any:
    """A model whose quantized weights are plain ones of the same values."""
    layers = list(_quantized(model))
    if not layers:
        return model
    if hasattr(layers[0].weight, "quant_state"):
        return model.dequantize()
    for layer in layers:
        layer.weight = Parameter(layer.weight.dequantize(), requires_grad=False)
    model.hf_quantizer.remove_quantization_config(model)
    return model


def refuse_copies(adapter: str, layers: Iterable[Module]) -> None:
    """Raise UserError if any of these layers, which an adapter copies, is quantized."""
    layers = [*layers]
    if any(map(packed, layers)):
        raise UserError(
            f"adapter.{adapter} trains copies of whole layers, which are quantized here; set "
            "model.quantization: none, or choose another adapter, such as lora."
        )
    numbers = (number for layer in layers for number in layer.parameters(recurse=False))
    if not all(number.is_floating_point() for number in numbers):
        raise UserError(
            f"adapter.{adapter} trains copies of whole layers, and some of this model are stored "
            "as codes of few bits; leave them out by adapter.full.layers_to_transform, or choose "
            "another adapter, such as lora."
        )


def _options(
    source: PretrainedModel, kind: Quantization, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """Arguments of `from_pretrained`; raises UserError if a library is missing."""
    if getattr(source.config, "quantization_config", None):
        raise UserError(
            f"model.quantization is {kind}, but the weights of {source.name} are quantized "
            "already; set it to none, or take the model as it was before."
        )
    lacking = [library for library in LIBRARIES[kind] if not importlib.util.find_spec(library)]
    if lacking:
        raise UserError(
            f"model.quantization {kind} needs {' and '.join(lacking)}; "
            'run pip install "hanse[quantized]", or set it to none.'
        )
    config = _int8() if kind == "int8" else _nf4(dtype)
    return {"quantization_config": config, "device_map": {"": str(device)}}


def _let_gradients_through(model: Any, name: str, kind: Quantization) -> None:
    """Let adapters below quantized layers train; raises UserError if they cannot.

    It also raises UserError if no layer is quantized, though the settings ask for it.
    """
    layers = list(_quantized(model))
    if kind != "none" and not layers:
        other = "to nf4 or none" if kind == "int8" else "to none"
        raise UserError(
            f"model.quantization is {kind}, but {name} keeps its matrices in a form that "
            f"{LIBRARIES[kind][0]} leaves as it is; set it {other}."
        )
    for layer in layers:
        # On processors that multiply bfloat16, bitsandbytes packs a layer when it first gets inputs
        # without gradient, as in evaluation; a packed layer passes no gradients on.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    kinds = {(type(layer), type(layer.weight)): layer for layer in layers}
    trains = all(_passes_gradients(layer, model.dtype) for layer in kinds.values())
    if not model.hf_quantizer.is_trainable or not trains:
        raise UserError(
            f"the weights of {name} are quantized in a way that lets no gradient through here, so "
            "adapters below the top could not learn; take the model in full precision, with "
            "model.quantization int8 or nf4 if memory is short."
        )


def _int8() -> TorchAoConfig:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(quant_type=Int8WeightOnlyConfig())


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _quantized(model: Module) -> Iterator[Any]:
    """The layers whose weights are quantized."""
    return filter(packed, model.modules())


def _passes_gradients(layer: Any, dtype: torch.dtype) -> bool:
    """True if a linear layer's gradient is right: y = Wx, so that ⟨Wᵀy, x⟩ = ⟨y, y⟩."""
    generator = torch.Generator().manual_seed(0)  # the run's random numbers stay as they are
    x = torch.randn(2, layer.in_features, generator=generator)
    x = x.to(layer.weight.device, dtype).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operators without a gradient, which is checked below
        y = layer(x) - layer(torch.zeros_like(x)).detach()
        if not y.requires_grad:
            return False
        (gradient,) = torch.autograd.grad(y, x, y.detach(), allow_unused=True)
    if gradient is None:
        return False
    ratio = (gradient * x.detach()).sum() / y.detach().square().sum()
    return abs(float(ratio) - 1) < EXACT
