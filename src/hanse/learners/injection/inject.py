"""Adapters are put into a model by PEFT, switched off there, and taken out again."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.functional import inject_adapter_in_model
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.utils import ModulesToSaveWrapper
from torch.nn import LSTM, Module

from hanse.errors import UserError
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.attached_adapter import AttachedAdapter
from hanse.learners.injection.trained_heads import (
    draw_heads,
    head_modules,
    outside_head,
    with_head,
)
from hanse.learners.models.layers import replaced
from hanse.learners.training.out_of_memory import is_shortage

# Warnings of PEFT about things that are as they should be.
NEEDLESS = (
    "fan_in_fan_out",  # it finds out by itself which matrices are transposed
    "Unsupported layer type",
    "Already found a `peft_config`",
    # LN tuning's, whose two copies `_tie` ties. LoRA's warning has other words and stays visible.
    "Model has `tie_word_embeddings=True`.*no implementation exists",
    # It looks for modules alone; these are parameters, which do get their rank and α.
    "The following (rank|alpha)_pattern keys did not match any targeted module",
)


def attach(
    model: Module,
    settings: Adapter,
    seed: int,
    task: str = "CAUSAL_LM",
    fresh: Sequence[str] = (),
) -> tuple[PeftModel, AttachedAdapter]:
    """Put an adapter into a model, beside those already in it.

    seed: draws what the adapter begins with. task: PEFT's name of the task of the model's head.
    fresh: modules that have no weights yet; each adapter has its own of them, trained whole.
    Raises UserError if the model cannot have this adapter.
    """
    name = _free_name(model)
    head = head_modules(model, fresh)
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        adapted, configs = _inject(model, settings, name, task, head)
        draw_heads(adapted, name, fresh, seed)
        _keep_lstms_precise(adapted)
        _tie(adapted.get_base_model(), name)
    settings.check(adapted, name)
    places = [f".{module}." for module in head]

    def trains(parameter: str) -> bool:
        return settings.trains(parameter) or any(place in parameter for place in places)

    attached = AttachedAdapter.of(adapted, name, configs, trains)
    attached.settings = settings
    return adapted, attached


def _free_name(model: Module) -> str:
    """A name that no adapter of the model has; earlier ones may have been removed."""
    taken = model.peft_config if isinstance(model, PeftModel) else {}
    return next(name for number in count() if (name := f"adapter{number}") not in taken)


def _inject(
    model: Module, settings: Adapter, name: str, task: str, head: Sequence[str]
) -> tuple[PeftModel, list[Any]]:
    """Let PEFT put all kinds of an adapter into a model; PEFT's configuration of each of them."""
    with _refused(settings, model):
        config = with_head(settings.config(model), model, task, head)
        if isinstance(model, PeftModel):
            _refuse_second_kind(model, config.peft_type)
            adapted = model
            adapted.add_adapter(name, config)
        else:
            adapted = get_peft_model(model, config, adapter_name=name)
    configs = [adapted.peft_config[name]]
    for kind in settings.kinds[1:]:
        with _refused(kind, model):
            configs.append(_inject_around(adapted, kind, name, head))
    return adapted, configs


def _refuse_second_kind(model: PeftModel, kind: Any) -> None:
    """Raise UserError if a model has adapters of another kind, beside which PEFT puts none."""
    first: Any = next(iter(model.peft_config.values())).peft_type
    if first != kind:
        names = [str(getattr(name, "value", name)).lower() for name in (first, kind)]
        raise UserError(
            f"a model in memory takes adapters of one kind, and this one has {names[0]} and "
            f"would get {names[1]}; choose the same kind for all who share the model here, or "
            "name a copy of the model for the others."
        )


def _inject_around(model: PeftModel, kind: Adapter, name: str, head: Sequence[str]) -> Any:
    """Put one more kind around those that an adapter has in the model; its configuration."""
    first = model.peft_config[name]
    config = outside_head(kind.config(model), model, head)
    config.base_model_name_or_path = first.base_model_name_or_path
    inject_adapter_in_model(config, model.get_base_model(), name)
    model.peft_config[name] = first  # PEFT puts the last one there
    return config


@contextmanager
def _refused(kind: Adapter, model: Module) -> Iterator[None]:
    """Within, errors of PEFT about an adapter become a UserError that names the adapter."""
    try:
        yield
    except kind.refusals as error:
        if isinstance(error, UserError) or is_shortage(error):
            raise
        raise UserError(kind.refusal(model, error)) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, PEFT's needless warnings are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about a property of transformers
        for message in NEEDLESS:
            warnings.filterwarnings("ignore", message)
        yield


def _keep_lstms_precise(model: PeftModel) -> None:
    """Let LSTMs compute in float32 on a CPU: many have no LSTM in bfloat16, and they are small."""
    for module in model.modules():
        if isinstance(module, LSTM):
            forward = partial(type(module).forward, module)
            module.forward = torch.autocast("cpu", enabled=False)(forward)  # type: ignore[method-assign]


def _tie(base: Any, name: str) -> None:
    """Share one copy between embeddings and output layer if these are one in the base model.

    PEFT's LN tuning makes two copies of them.
    """
    output, words = base.get_output_embeddings(), base.get_input_embeddings()
    pair = [layer for layer in (output, words) if isinstance(layer, LNTuningLayer)]
    copied = len(pair) == 2 and all(name in layer.ln_tuning_layers for layer in pair)
    if copied and output.base_layer.weight is words.base_layer.weight:
        output.ln_tuning_layers[name].weight = words.ln_tuning_layers[name].weight


def detach(model: PeftModel, adapter: str) -> Module:
    """Take an adapter out of a model; without the last one it is the base model again."""
    others = [name for name in model.peft_config if name != adapter]
    if others:
        model.set_adapter(others[0])
        model.delete_adapter(adapter)
        return model
    base: Module = model.get_base_model()
    heads = {
        name: module.original_module
        for name, module in base.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
    }
    if not model.peft_config[adapter].is_prompt_learning:
        base = model.unload()
    for name, head in heads.items():  # PEFT leaves the adapter's copy, or the wrapper, there
        parent, _, attribute = name.rpartition(".")
        setattr(base.get_submodule(parent), attribute, head)
    return base


@contextmanager
def disabled(model: PeftModel) -> Iterator[None]:
    """Within, all adapters and their heads are switched off.

    PEFT can switch off prompts for language models only, and leaves the heads on.
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
