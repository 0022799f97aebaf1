"""An adapter's constants inside a model: what it has beside the parameters that are trained."""

from collections.abc import Iterator

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor

from hanse.errors import UserError
from hanse.learners.injection.attached_adapter import AttachedAdapter
from hanse.learners.injection.tuners.lora_xs import LinearWithCore
from hanse.tensors.low_rank import Factors
from hanse.tensors.named import Tensors, refuse_unlike

UP, DOWN = ".core_b", ".core_a"  # end the names of LoRA-XS's factors


def found(model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """The live constants of one adapter by name; those that are not there yet are computed."""
    tensors = _buffers(model, adapter)
    for name, layer in _cores(model, adapter):
        fixed = layer.factors(adapter)
        tensors |= {name + UP: fixed.up, name + DOWN: fixed.down}
    return {name: tensors[name] for name in sorted(tensors)}


def put(model: PeftModel, adapter: str, tensors: Tensors) -> None:
    """Set the constants of one adapter; raises UserError unless names and shapes are the same."""
    buffers = _buffers(model, adapter)
    cores = dict(_cores(model, adapter))
    wanted = dict(buffers)
    for name, layer in cores.items():
        up, down = layer.shapes(adapter)
        wanted |= {name + UP: torch.empty(up, device="meta")}
        wanted |= {name + DOWN: torch.empty(down, device="meta")}
    refuse_unlike(wanted, tensors)
    for name, buffer in buffers.items():
        buffer.copy_(tensors[name])
    for name, layer in cores.items():
        there = layer.core_r[adapter]
        layer.fixed[adapter] = Factors(tensors[name + UP].to(there), tensors[name + DOWN].to(there))


def read(model: PeftModel, attached: AttachedAdapter, tensors: Tensors) -> None:
    """Set the constants that a PEFT file has; raises UserError if one of another kind differs.

    tensors: all of the file; those that are trained are in the adapter already.
    """
    for name, buffer in _named_buffers(model, attached.name):
        if name in tensors and tensors[name].shape == buffer.shape:
            buffer.copy_(tensors[name])
    live = attached.parameters.keys() | attached.untrained.keys()
    if tensors.keys() <= live:
        return
    there = get_peft_model_state_dict(
        model, adapter_name=attached.name, save_embedding_layers=False
    )
    for name in sorted(tensors.keys() & there.keys() - live):
        if not torch.equal(there[name].cpu(), tensors[name].to(there[name].dtype)):
            raise UserError(
                f"the adapter has {name} of its own, which its settings do not tell; an adapter of "
                "this kind can be gone on with only if it was made here."
            )


def _cores(model: PeftModel, adapter: str) -> Iterator[tuple[str, LinearWithCore]]:
    for name, module in model.named_modules():
        if isinstance(module, LinearWithCore) and adapter in module.core_r:
            yield name, module


def _buffers(model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """What stands in a model as an adapter's buffers, such as VeRA's random projections.

    Layers may share one, which is then named by the first of them.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, buffer in _named_buffers(model, adapter):
        if id(buffer) not in seen:
            seen.add(id(buffer))
            found[name] = buffer
    return found


def _named_buffers(model: PeftModel, adapter: str) -> Iterator[tuple[str, Tensor]]:
    """An adapter's buffers by all the names that they have on disk."""
    for name, buffer in model.named_buffers(remove_duplicate=False):
        path = name.split(".")
        if adapter in path:
            yield ".".join(part for part in path if part != adapter), buffer
