"""Adapters inside a model: put there by PEFT, found by name."""

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.functional import inject_adapter_in_model
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch.nn import LSTM, Dropout, Module, Parameter

from hanse.errors import UserError
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.target_modules import targeted
from hanse.learners.models.layers import replaced
from hanse.learners.training.out_of_memory import is_shortage
from hanse.tensors.low_rank import A
from hanse.tensors.named import Tensors

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
) -> tuple[PeftModel, str, list[Any]]:
    """Put an adapter into `model` (or beside those already in it).

    The model, the adapter's name there, and PEFT's configuration of each of its kinds.

    seed: draws what the adapter begins with. task: what PEFT calls the model's head.
    fresh: modules that have no weights yet; each adapter has its own of them, trained whole.
    Raises UserError if the model cannot be adapted so.
    """
    there = model if isinstance(model, PeftModel) else None
    name = f"adapter{len(there.peft_config) if there else 0}"
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        try:
            head = head_of(model, fresh)
            config = _headed(settings.config(model), model, task, head)
            if there is None:
                there = get_peft_model(model, config, adapter_name=name)
            else:
                there.add_adapter(name, config)
        except settings.refusals as error:
            raise _refused(settings, model, error) from None
        configs = [there.peft_config[name]]
        for kind in settings.kinds[1:]:
            try:
                configs.append(_around(there, kind, name, head))
            except kind.refusals as error:
                raise _refused(kind, model, error) from None
        _draw_heads(there, name, fresh, seed)
        _tie(there.get_base_model(), name)
    settings.check(there, name)
    return there, name, configs


def _draw_heads(model: PeftModel, name: str, fresh: Sequence[str], seed: int) -> None:
    """Draw heads that have no weights yet, and keep recurrent encoders in full precision."""
    torch.manual_seed(seed ^ 1)  # or a head would begin by what its adapter has drawn before
    for place, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper) and place.endswith(tuple(fresh)):
            _draw(module.modules_to_save[name])
    for module in model.modules():
        if isinstance(module, LSTM):
            _keep_precise(module)


def _around(model: PeftModel, kind: Adapter, name: str, head: Sequence[str]) -> Any:
    """Put one more kind around what an adapter has in the model already; its configuration."""
    first = model.peft_config[name]
    config = _outside(kind.config(model), model, head)
    config.base_model_name_or_path = first.base_model_name_or_path
    inject_adapter_in_model(config, model.get_base_model(), name)
    model.peft_config[name] = first  # PEFT puts the last one there
    return config


def _refused(kind: Adapter, model: Module, error: Exception) -> Exception:
    """A sentence about an adapter that PEFT cannot put into a model; other errors as they are."""
    if isinstance(error, UserError) or is_shortage(error):
        return error
    return UserError(kind.refused(model, error))


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


def _keep_precise(lstm: LSTM) -> None:
    """Let an LSTM compute in float32 on a CPU, of which many have none in bfloat16; it is small."""
    whole = partial(type(lstm).forward, lstm)
    lstm.forward = torch.autocast("cpu", enabled=False)(whole)  # type: ignore[method-assign]


def head_of(model: Any, fresh: Sequence[str]) -> list[str]:
    """The modules of a classifier's head, which every adapter trains whole, new or not.

    fresh: those that have no weights yet; what stands behind the transformer is head in any case.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    inner = base.base_model_prefix
    if base.get_output_embeddings() is not None or not hasattr(base, inner):
        return [*fresh]
    behind = [name for name, own in base.named_children() if any(True for _ in own.parameters())]
    return sorted({*fresh, *behind} - {inner})


def _headed(config: Any, model: Any, task: str, head: Sequence[str]) -> Any:
    """A configuration for a model whose head has these modules."""
    config.task_type = task
    if head:
        whole = {name.rpartition(".")[2] for name in head}
        config.modules_to_save = sorted(whole.union(config.modules_to_save or ()))
    return _outside(config, model, head)


def _outside(config: Any, model: Any, head: Sequence[str]) -> Any:
    """A configuration that puts nothing into the modules of a head."""
    targets = getattr(config, "target_modules", None)
    if not head or not targets:
        return config
    if getattr(config, "layers_to_transform", None) is None:
        found = targeted(model, targets)
    else:
        found = [*targets]  # in layers, among which a head is not, unless it is named
    inside = tuple(f"{name}." for name in head)
    if any(f"{name}.".startswith(inside) for name in found):
        outside = [name for name in found if not f"{name}.".startswith(inside)]
        config.target_modules = outside or DUMMY_TARGET_MODULES
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
            # Of LN tuning, whose two copies are tied here; LoRA's is another sentence, and true.
            "Model has `tie_word_embeddings=True`.*no implementation exists",
            # It looks for modules alone, and these are parameters, which do get them.
            "The following (rank|alpha)_pattern keys did not match any targeted module",
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
    """The modules that drop inputs of one adapter while it is trained, as its settings say.

    What a copy of the model's own module has, such as a head, rests as in the model itself.
    """
    named = ((name.split("."), module) for name, module in model.named_modules())
    kinds = Dropout, LSTM  # which drops between its layers, and on a GPU is trained no other way
    return [
        module
        for path, module in named
        if adapter in path and "modules_to_save" not in path and isinstance(module, kinds)
    ]


def dropout(model: PeftModel, adapter: str) -> float:
    """The share of inputs that an adapter drops in training."""
    drops = (layer.lora_dropout[adapter] for layer in _loras(model, adapter))
    return max((float(getattr(drop, "p", 0.0)) for drop in drops), default=0.0)


def rank(model: PeftModel, adapter: str) -> int:
    """An adapter's rank; 0 if it has none."""
    own: int = getattr(model.peft_config[adapter], "r", 0)
    return own or min((layer.r[adapter] for layer in _loras(model, adapter)), default=0)


def scaling(model: PeftModel, adapter: str) -> float:
    """What a LoRA adapter's products are multiplied by, the same in all layers; else 1."""
    return next((float(layer.scaling[adapter]) for layer in _loras(model, adapter)), 1.0)


def scalings(model: PeftModel, adapter: str, live: Tensors) -> dict[str, float]:
    """What an adapter's low-rank products are multiplied by (α/r), by the name of the layer.

    live: its parameters, by the names that layers have whatever was put into the model since.
    """
    names = {id(parameter): name.removesuffix(A) for name, parameter in live.items()}
    layers = [layer for layer in _loras(model, adapter) if adapter in layer.lora_A]
    found = {id(layer.lora_A[adapter].weight): layer.scaling[adapter] for layer in layers}
    return {names[key]: float(value) for key, value in found.items() if key in names}


def _loras(model: PeftModel, adapter: str) -> list[Any]:
    """The layers that LoRA with this name is in."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return [layer for layer in layers if adapter in layer.scaling]
