"""The head of a classifier or tagger inside an adapter: each adapter trains a copy of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch.nn import Module

from hanse.learners.injection.target_modules import targeted
from hanse.learners.models.start_weights import within
from hanse.tensors.philox import normals

DEVIATION = 0.02  # of a new head's weights


def head_modules(model: Any, fresh: Sequence[str]) -> list[str]:
    """The names of the modules of a classifier's head, which every adapter trains whole.

    fresh: modules that have no weights yet. Modules behind the transformer are head in any case.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    inner = base.base_model_prefix
    if base.get_output_embeddings() is not None or not hasattr(base, inner):
        return [*fresh]
    children = base.named_children()
    behind = [name for name, module in children if any(True for _ in module.parameters())]
    return sorted({*fresh, *behind} - {inner})


def with_head(config: Any, model: Any, task: str, head: Sequence[str]) -> Any:
    """An adapter's PEFT configuration, changed to train the modules `head` whole."""
    config.task_type = task
    if head:
        modules = {name.rpartition(".")[2] for name in head}
        config.modules_to_save = sorted(modules.union(config.modules_to_save or ()))
    return outside_head(config, model, head)


def outside_head(config: Any, model: Any, head: Sequence[str]) -> Any:
    """An adapter's PEFT configuration, changed to put nothing into the modules `head`."""
    targets = getattr(config, "target_modules", None)
    if not head or not targets:
        return config
    if getattr(config, "layers_to_transform", None) is None:
        names = targeted(model, targets)
    else:
        names = [*targets]  # PEFT takes those in a numbered layer; a head is in none of them
    prefixes = tuple(f"{name}." for name in head)
    outside = [name for name in names if not f"{name}.".startswith(prefixes)]
    if len(outside) < len(names):
        config.target_modules = outside or DUMMY_TARGET_MODULES
    return config


def draw_heads(model: PeftModel, adapter: str, fresh: Sequence[str], seed: int) -> None:
    """Draw an adapter's copies of the head modules that have no weights yet."""
    torch.manual_seed(seed ^ 1)  # what the adapter itself has drawn must not change the head
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper) and name.endswith(tuple(fresh)):
            _draw(module.modules_to_save[adapter])


def draw_in_place(model: Any, fresh: Sequence[str], seed: int) -> None:
    """Draw a model's own head modules that have no weights yet, equal to 1e-6 on all machines."""
    for index, (name, weight) in enumerate(sorted(within(model, fresh).items())):
        if name.endswith("bias"):
            weight.zero_()
        else:
            drawn = normals((seed % 2**32, index), 0, weight.numel(), weight.device)
            weight.copy_(drawn.view(weight.shape) * DEVIATION)


def _draw(module: Module) -> None:
    """Draw a module as BERT's are: weights normal with this deviation, biases zero."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
        else:
            torch.nn.init.normal_(parameter, std=DEVIATION)
