"""Adapters: the small tensors that are trained inside a frozen model (LoRA, through PEFT)."""

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from pydantic import (
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    TypeAdapter,
    ValidationError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import Linear, Module, Parameter
from transformers.pytorch_utils import Conv1D

from hanse.errors import UserError
from hanse.tensors import Tensors

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Lora:
    """LoRA (Hu et al. 2021, 2106.09685): W + (α/r)·B·A with W frozen, B zero at the start."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    r: Annotated[int, Field(ge=1, le=65_536)] = 8  # more than the width of any matrix
    lora_alpha: PositiveFloat = 16
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # Names of modules, or a regular expression; none: PEFT's choice for the architecture.
    target_modules: tuple[str, ...] | str | None = field(default=None)
    # The layers that have them, counted from 0; none: all. What lies below is computed once.
    layers_to_transform: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None


def attach(model: Module, settings: Lora, seed: int) -> tuple[PeftModel, str]:
    """Put an adapter into `model` (or beside those already in it); the model and its name there.

    seed: draws A; B is zero, so the model's function is unchanged.
    Raises UserError if no module of the model is meant by `target_modules`, or if there is no such
    layer.
    """
    name = f"lora{len(model.peft_config)}" if isinstance(model, PeftModel) else "lora0"
    config = _config(settings, model)
    with torch.random.fork_rng(), warnings.catch_warnings():
        # PEFT asks transformers for a property by its old name.
        warnings.simplefilter("ignore", FutureWarning)
        # It finds out by itself which matrices are transposed (Conv1D), and says so.
        warnings.filterwarnings("ignore", "fan_in_fan_out")
        torch.manual_seed(seed)
        try:
            if isinstance(model, PeftModel):
                model.add_adapter(name, config)
            else:
                model = get_peft_model(model, config, adapter_name=name)
        except (ValueError, re.error) as error:
            raise UserError(_unmatched(model, settings, error)) from None
    _refuse_useless(model, name, settings.r)
    return model, name


def _refuse_useless(model: PeftModel, adapter: str, rank: int) -> None:
    """A rank above the size of every adapted matrix only costs."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    pairs = [(own.lora_A[adapter], own.lora_B[adapter]) for own in layers if adapter in own.lora_A]
    most = max((min(a.in_features, b.out_features) for a, b in pairs), default=rank)
    if rank > most:
        raise UserError(
            f"adapter.lora.r is {rank}, but the adapted matrices have at most {most} rows or "
            f"columns, so a higher rank adds nothing; set it to {most} or less."
        )


def parameters(model: PeftModel, adapter: str) -> dict[str, Parameter]:
    """The trained parameters of one adapter, by the names that PEFT gives them on disk."""
    found = {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if adapter in parts:
            found[".".join(part for part in parts if part != adapter)] = parameter
    return {name: found[name] for name in sorted(found)}


@contextmanager
def held(parameters: Iterable[Parameter]) -> Iterator[None]:
    """Within, these get no gradients."""
    listed = list(parameters)
    for parameter in listed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in listed:
            parameter.requires_grad_(True)


def dropouts(model: PeftModel, adapter: str) -> list[Module]:
    """The modules that drop inputs of one adapter while it is trained."""
    layers = (module for module in model.modules() if isinstance(module, LoraLayer))
    return [layer.lora_dropout[adapter] for layer in layers if adapter in layer.lora_dropout]


def dropout(model: PeftModel, adapter: str) -> float:
    """The share of inputs that an adapter drops in training."""
    config: Any = model.peft_config[adapter]
    share: float = config.lora_dropout
    return share


def rank(model: PeftModel, adapter: str) -> int:
    """An adapter's rank."""
    config: Any = model.peft_config[adapter]
    found: int = config.r
    return found


def scaling(model: PeftModel, adapter: str) -> float:
    """What an adapter's low-rank products are multiplied by: α/r."""
    config: Any = model.peft_config[adapter]
    found: float = config.lora_alpha / config.r
    return found


def scalings(model: PeftModel, adapter: str) -> dict[str, float]:
    """What an adapter's low-rank products are multiplied by (α/r), by the name of the layer."""
    layers = ((n, module) for n, module in model.named_modules() if isinstance(module, LoraLayer))
    return {name: layer.scaling[adapter] for name, layer in layers if adapter in layer.scaling}


def save(
    model: PeftModel, adapter: str, tensors: Tensors, folder: Path, rank: int | None = None
) -> None:
    """Write an adapter as PEFT writes it: its configuration and its tensors.

    rank: of tensors that are of another one than the adapter, and whose product is not scaled.
    """
    config: Any = copy(model.peft_config[adapter])
    config.inference_mode = True
    if rank is not None:
        config.r = config.lora_alpha = rank
    config.save_pretrained(str(folder))
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(dict(tensors), {"format": "pt"}))


def read(folder: Path) -> tuple[Lora, dict[str, Tensor]]:
    """Settings and tensors of an adapter on disk; raises UserError if there is none to use."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{folder} holds no adapter that can be read ({error}); name a run folder, or a PEFT "
            f"folder with {CONFIG} and {WEIGHTS}."
        ) from None
    strange = _strange(config)
    if strange:
        raise UserError(f"{folder / CONFIG} {strange}; only plain LoRA can be continued.")
    targets = config.get("target_modules")
    values = {name: config[name] for name in ("r", "lora_alpha", "lora_dropout")}
    values["target_modules"] = tuple(sorted(targets)) if isinstance(targets, list) else targets
    layers = config.get("layers_to_transform")
    values["layers_to_transform"] = ((layers,) if isinstance(layers, int) else layers) or None
    try:
        return TypeAdapter(Lora).validate_python(values), tensors
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{folder / CONFIG}: {first['loc'][0]} {first['msg'].lower()}.") from None


def base(folder: Path) -> str:
    """The base model that an adapter on disk is for; raises UserError if that is not said."""
    try:
        name = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, LookupError, TypeError):
        name = None
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{folder / CONFIG} does not say which base model the adapter is for; write its "
            "base_model_name_or_path."
        )
    return name


def _strange(config: Any) -> str:
    """What makes an adapter's configuration other than plain LoRA; "" if nothing does."""
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        return "is not that of a LoRA adapter"
    if lacking := {"r", "lora_alpha", "lora_dropout"} - config.keys():
        return f"does not say {min(lacking)}"
    plain: dict[str, tuple[Any, ...]] = {
        **dict.fromkeys(("use_dora", "use_rslora", "alpha_pattern", "rank_pattern"), ()),
        **dict.fromkeys(("layers_pattern", "modules_to_save", "lora_bias"), ()),
        "bias": ("none",),
        "init_lora_weights": (True,),
    }
    for name, allowed in plain.items():
        value = config.get(name)
        if value and value not in allowed:
            return f"has {name}: {value!r}"
    return ""


def _config(settings: Lora, model: Any) -> LoraConfig:
    values: dict[str, Any] = asdict(settings)
    if isinstance(settings.target_modules, tuple):
        values["target_modules"] = list(settings.target_modules)
    if settings.layers_to_transform is not None:
        values["layers_to_transform"] = list(settings.layers_to_transform)
        values["target_modules"] = _names_in_layers(settings, model)
    return LoraConfig(task_type="CAUSAL_LM", **values)


def _names_in_layers(settings: Lora, model: Any) -> list[str] | None:
    """The target modules as a list of names: PEFT takes nothing else for some of the layers."""
    asked, count = settings.target_modules, model.config.get_text_config().num_hidden_layers
    if (last := max(settings.layers_to_transform or ())) >= count:
        raise UserError(
            f"layers_to_transform names {last}, but the model's layers are 0 to {count - 1}; "
            "choose among these."
        )
    if asked == "all-linear":
        return list(_linears(model, spare=model.get_output_embeddings()))
    if isinstance(asked, str):
        raise UserError(
            f"layers_to_transform cannot go with the regular expression {asked!r}; let the "
            "expression choose the layers, or write target_modules as a list of names."
        )
    return None if asked is None else list(asked)


def _linears(model: Module, spare: Module | None = None) -> Counter[str]:
    """How many linear layers have which name; those within adapters and `spare` do not count."""
    return Counter(
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        # PEFT calls its own layers after what they are put around: Linear, Linear8bitLt.
        if isinstance(module, (Linear, Conv1D)) or type(module).__name__.startswith("Linear")
        if module is not spare
        if not re.search(r"\.(base_layer|lora_[AB]\..*)$", name)
    )


def _unmatched(model: Module, settings: Lora, error: Exception) -> str:
    """Which modules there are, when those that were asked for are not among them."""
    names = ", ".join(name for name, _ in _linears(model).most_common())
    asked = settings.target_modules
    if asked is None:
        return f"PEFT has no default target_modules for this model; name some of: {names}."
    if "not found" in str(error):
        where = "this model" if settings.layers_to_transform is None else "the model's layers"
        return f"target_modules {asked!r} are not in {where}; it has {names}."
    return f"LoRA cannot be put into this model: {error}."
