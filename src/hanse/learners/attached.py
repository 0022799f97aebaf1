"""Adapters inside a model: put there by PEFT, found by name, written to disk and read back."""

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.functional import inject_adapter_in_model
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from peft.utils.constants import DUMMY_TARGET_MODULES
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import LSTM, Dropout, Module, Parameter

from hanse import parts
from hanse.errors import UserError
from hanse.learners.adapter import Adapter
from hanse.learners.decoder import replaced
from hanse.learners.shortage import is_shortage
from hanse.learners.tuners import lora_xs
from hanse.tensors import Tensors

FOLDER = "learners/adapters"  # where the package keeps the kinds of adapters
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
# What a name in a model has that it has not on disk: a whole module's copy, a vector's own module.
WITHOUT = re.compile(r"\.modules_to_save\b|(?<=lora_magnitude_vector)\.weight$")
ENCODER = "prompt_encoder."  # begins the names of what makes the vectors before a text
EMBEDDING, PROMPT = f"{ENCODER}embedding.weight", "prompt_embeddings"


def attach(
    model: Module,
    settings: Adapter,
    seed: int,
    task: str = "CAUSAL_LM",
    fresh: Sequence[str] = (),
) -> tuple[PeftModel, str]:
    """Put an adapter into `model` (or beside those already in it); the model and its name there.

    seed: draws what the adapter begins with. task: what PEFT calls the model's head.
    fresh: modules that have no weights yet; each adapter has its own of them, trained whole.
    Raises UserError if the model cannot be adapted so.
    """
    there = model if isinstance(model, PeftModel) else None
    name = f"adapter{len(there.peft_config) if there else 0}"
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        try:
            config = _headed(settings.config(model), task, fresh)
            if there is None:
                there = get_peft_model(model, config, adapter_name=name)
            else:
                there.add_adapter(name, config)
            for other in settings.kinds[1:]:
                inject_adapter_in_model(other.config(model), there.get_base_model(), name)
        except settings.refusals as error:
            if isinstance(error, UserError) or is_shortage(error):
                raise
            raise UserError(settings.refused(model, error)) from None
        for place, module in there.named_modules():
            if isinstance(module, ModulesToSaveWrapper) and place.endswith(tuple(fresh)):
                _draw(module.modules_to_save[name])
        _tie(there.get_base_model(), name)
    settings.check(there, name)
    return there, name


def detach(model: PeftModel, adapter: str) -> Module:
    """Take an adapter out; the model, which is the base model again when it was the last one."""
    others = [name for name in model.peft_config if name != adapter]
    if others:
        model.set_adapter(others[0])
        model.delete_adapter(adapter)
        return model
    base: Module = model.get_base_model()
    heads = {
        place: module.original_module
        for place, module in base.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
    }
    if not model.peft_config[adapter].is_prompt_learning:
        base = model.unload()
    for place, head in heads.items():  # PEFT leaves the adapter's own copy, or where it stood
        parent, _, name = place.rpartition(".")
        setattr(base.get_submodule(parent), name, head)
    return base


@contextmanager
def disabled(model: PeftModel) -> Iterator[None]:
    """Within, no adapter is at work, nor any head that belongs to one.

    Where a prompt is an adapter, PEFT can do so for language models alone, and leaves the heads.
    """
    heads = [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]
    prompted = model.peft_config[model.active_adapter].is_prompt_learning
    base = model.base_model.forward
    with replaced([model], base) if prompted else model.disable_adapter():
        for head in heads:
            head.enable_adapters(False)
        try:
            yield
        finally:
            for head in heads:
                head.enable_adapters(True)


def _headed(config: Any, task: str, fresh: Sequence[str]) -> Any:
    """A configuration for a model with this head, of which these modules are new."""
    config.task_type = task
    if fresh:
        new = {name.rpartition(".")[2] for name in fresh}
        config.modules_to_save = sorted(new.union(config.modules_to_save or ()))
        if isinstance(listed := getattr(config, "target_modules", None), list | set):
            rest = [name for name in listed if not name.startswith(tuple(fresh))]
            config.target_modules = rest or DUMMY_TARGET_MODULES
    return config


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PEFT says of things that are as they should be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a property of transformers
        for said in (
            "fan_in_fan_out",  # which matrices are transposed, it finds out by itself
            "Unsupported layer type",
            "Already found a `peft_config`",
            "Model has `tie_word_embeddings=True`",
        ):
            warnings.filterwarnings("ignore", said)
        yield


def _tie(base: Any, name: str) -> None:
    """One copy of embeddings that are the output layer, too, where PEFT has made two of them."""
    output, words = base.get_output_embeddings(), base.get_input_embeddings()
    pair = [own for own in (output, words) if isinstance(own, LNTuningLayer)]
    copied = len(pair) == 2 and all(name in own.ln_tuning_layers for own in pair)
    if copied and output.base_layer.weight is words.base_layer.weight:
        output.ln_tuning_layers[name].weight = words.ln_tuning_layers[name].weight


def _draw(module: Module) -> None:
    """Begin a module anew, as BERT's are: normal with a deviation of 0.02, and no bias."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
        else:
            torch.nn.init.normal_(parameter, std=0.02)


def parameters(model: PeftModel, adapter: str) -> dict[str, Parameter]:
    """The trained parameters of one adapter, by the names that PEFT gives them on disk."""
    found = {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if adapter in parts:
            plain = WITHOUT.sub("", ".".join(part for part in parts if part != adapter))
            found[plain] = parameter
    if [name for name in found if name.startswith(ENCODER)] == [EMBEDDING]:
        found[PROMPT] = found.pop(EMBEDDING)  # the vectors themselves; nothing else makes them
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
    named = ((name.split("."), module) for name, module in model.named_modules())
    kinds = Dropout, LSTM  # which drops between its layers, and on a GPU is trained no other way
    return [module for path, module in named if adapter in path and isinstance(module, kinds)]


def dropout(model: PeftModel, adapter: str) -> float:
    """The share of inputs that an adapter drops in training."""
    config: Any = model.peft_config[adapter]
    share: float = getattr(config, "lora_dropout", 0.0)
    return share


def rank(model: PeftModel, adapter: str) -> int:
    """An adapter's rank; 0 if it has none."""
    found: int = getattr(model.peft_config[adapter], "r", 0)
    return found


def scaling(model: PeftModel, adapter: str) -> float:
    """What a LoRA adapter's products are multiplied by, the same in all layers; else 1."""
    return next(iter(scalings(model, adapter).values()), 1.0)


def scalings(model: PeftModel, adapter: str) -> dict[str, float]:
    """What an adapter's low-rank products are multiplied by (α/r), by the name of the layer."""
    layers = ((n, module) for n, module in model.named_modules() if isinstance(module, LoraLayer))
    return {name: layer.scaling[adapter] for name, layer in layers if adapter in layer.scaling}


def save(
    model: PeftModel,
    adapter: str,
    tensors: Tensors,
    folder: Path,
    rank: int | None = None,
    aside: Sequence[str] = (),
) -> None:
    """Write an adapter as PEFT writes it: its configuration and its tensors.

    tensors: all that are trained; what PEFT keeps beside them, such as random projections, is in
        the model. What makes a prompt is not kept, only the prompt.
    rank: of tensors that are of another one than the adapter, and whose product is not scaled.
    aside: what stands in the names of tensors that are left out, since the configuration does not
        tell of them.
    """
    config: Any = copy(model.peft_config[adapter])
    with torch.no_grad():  # a prompt is made just as it is for scores
        beside = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    if config.peft_type == lora_xs.KIND:
        config, tensors = lora_xs.as_lora(model, adapter, tensors)
        beside = {}
    config.inference_mode = True
    if rank is not None:
        config.r = config.lora_alpha = rank
        config.use_rslora = False
    config.save_pretrained(str(folder))
    whole = {**{name: tensor.contiguous() for name, tensor in beside.items()}, **tensors}
    whole = {
        name: tensor
        for name, tensor in whole.items()
        if not name.startswith(ENCODER) and not any(part in name for part in aside)
    }
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(whole, {"format": "pt"}))


def read(folder: Path) -> tuple[Adapter, dict[str, Tensor]]:
    """Settings and tensors of an adapter on disk; raises UserError if there is none to use."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{folder} holds no adapter that can be read ({error}); name a run folder, or a PEFT "
            f"folder with {CONFIG} and {WEIGHTS}."
        ) from None
    found = parts.find(FOLDER, _name(config, folder))
    assert issubclass(found, Adapter)
    try:
        return found.read(config), tensors
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{folder / CONFIG}: {first['loc'][0]} {first['msg'].lower()}.") from None
    except ValueError as error:
        raise UserError(f"{folder / CONFIG} {error}; such an adapter cannot be used.") from None


def _name(config: Any, folder: Path) -> str:
    """Which of our kinds of adapters is written in a configuration."""
    kind = config.get("peft_type") if isinstance(config, dict) else None
    for name in parts.names(FOLDER):
        if kind and getattr(parts.find(FOLDER, name), "kind", None) == kind:
            return name
    if kind in PEFT_TYPE_TO_CONFIG_MAPPING:
        return "peft"
    raise UserError(
        f"{folder / CONFIG} has the peft_type {kind!r}, which the PEFT that is installed does not "
        "know; install the version that wrote it."
    )


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
