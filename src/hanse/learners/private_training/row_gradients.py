"""The gradient of each row of a batch, by Opacus's hooks on the modules that are trained.

Opacus (Yousefpour et al. 2021, 2109.12298) keeps each module's inputs in the forward pass, and in
the backward pass multiplies them row by row with the gradients of its outputs. Its hooks are on the
modules that own the trained parameters, so that nothing wraps the model or renames its tensors.
"""

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn import Module, ModuleList, Parameter

from hanse.errors import UserError, refuse_missing
from hanse.learners.injection.attached_adapter import in_training

# Where no input of a module needs a gradient, torch says that its hook runs for the outputs alone.
EXPECTED = "Full backward hook is firing"


def require_opacus() -> None:
    """Raise UserError if Opacus is not installed."""
    refuse_missing("training on gradients of rows", "privacy", ["opacus"], "set privacy: none")


class RowGradients:
    """The gradients of rows after a backward pass, by the names of the parameters.

    Only within `hooked`. The loss of the backward pass is a sum over rows.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._parameters: Mapping[str, Any] = parameters

    def take(self, rows: int) -> dict[str, Tensor]:
        """(rows, …) gradients of the last backward pass; the parameters keep none.

        A parameter that the loss does not depend on is left out. Raises UserError if the gradients
        of one are not known row by row.
        """
        taken = {}
        for name, parameter in self._parameters.items():
            by_rows, whole = parameter.grad_sample, parameter.grad
            parameter.grad_sample = parameter.grad = None
            if whole is None:
                continue
            if not isinstance(by_rows, Tensor) or len(by_rows) != rows:
                raise UserError(
                    f"the gradient of {name} is not known row by row, so nothing could hide a row; "
                    "choose another adapter or model, such as lora, or privacy: none."
                )
            taken[name] = by_rows
        return taken


@contextmanager
def hooked(model: Module, parameters: Mapping[str, Parameter]) -> Iterator[RowGradients]:
    """Within this context, backward passes give gradients of rows for these parameters."""
    require_opacus()
    hooks_class = _hooks_class()
    owners = ModuleList(_owners(model, parameters, hooks_class.GRAD_SAMPLERS))
    with in_training([*owners], True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", EXPECTED)
        hooks = hooks_class(owners, loss_reduction="sum", strict=False)
        try:
            yield RowGradients(parameters)
        finally:
            hooks.cleanup()
            for owner in owners:
                for left in ("activations", "max_batch_len"):
                    vars(owner).pop(left, None)


def _hooks_class() -> Any:
    """Opacus's class of hooks; its import leaves this process's logging as it is."""
    handlers = [*logging.root.handlers]
    from opacus.grad_sample import GradSampleHooks

    logging.root.handlers[:] = handlers
    return GradSampleHooks


def _owners(
    model: Module, parameters: Mapping[str, Parameter], known: Collection[type]
) -> list[Module]:
    """The modules of these parameters; raises UserError for one of an unknown type."""
    wanted = {id(parameter): name for name, parameter in parameters.items()}
    owners = []
    for module in model.modules():
        names = [wanted[id(p)] for p in module.parameters(recurse=False) if id(p) in wanted]
        if not names:
            continue
        if type(module) not in known:
            raise UserError(
                f"example_dp limits the gradient of each row, which Opacus does not compute for "
                f"{names[0]} (of a {type(module).__name__}); choose another adapter, such as lora, "
                "or privacy: none."
            )
        owners.append(module)
    return owners
