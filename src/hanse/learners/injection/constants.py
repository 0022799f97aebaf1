"""An adapter's constants in a model: tensors that it needs and that nobody trains."""

from collections.abc import Iterator

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor

from hanse.errors import UserError
from hanse.learners.injection.attached_adapter import AttachedAdapter
from hanse.learners.injection.tuners.lora_xs import LinearWithCore
from hanse.tensors.low_rank import Factors
from hanse.tensors.named import Tensors, refuse_unlike

UP, DOWN = ".core_b", ".core_a"  # the ends of the names of LoRA-XS's factors


def live(model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """The constants of one adapter in the model, by name; missing ones are computed."""
    tensors = _buffers(model, adapter)
    for name, layer in _cores(model, adapter):
        fixed = layer.factors(adapter)
        tensors |= {name + UP: fixed.up, name + DOWN: fixed.down}
    return {name: tensors[name] for name in sorted(tensors)}


def put(model: PeftModel, adapter: str, tensors: Tensors) -> None:
    """Set the constants of one adapter; raises UserError unless names and shapes are the same."""
    buffers = _buffers(model, adapter)
    cores = dict(_cores(model, adapter))
    layout = dict(buffers)
    for name, layer in cores.items():
        up, down = layer.shapes(adapter)
        layout |= {name + UP: torch.empty(up, device="meta")}
        layout |= {name + DOWN: torch.empty(down, device="meta")}
    refuse_unlike(layout, tensors)
    for name, buffer in buffers.items():
        buffer.copy_(tensors[name])
    for name, layer in cores.items():
        core = layer.core_r[adapter]
        layer.fixed[adapter] = Factors(tensors[name + UP].to(core), tensors[name + DOWN].to(core))


def read(model: PeftModel, attached: AttachedAdapter, tensors: Tensors) -> None:
    """Set the constants that a PEFT file has; raises UserError if one differs that cannot be set.

    tensors: all of the file. The trained ones are in the adapter already.
    """
    for name, buffer in _named_buffers(model, attached.name):
        if name in tensors and tensors[name].shape == buffer.shape:
            buffer.copy_(tensors[name])
    parameters = attached.parameters.keys() | attached.untrained.keys()
    if tensors.keys() <= parameters:
        return
    state = get_peft_model_state_dict(
        model, adapter_name=attached.name, save_embedding_layers=False
    )
    for name in sorted(tensors.keys() & state.keys() - parameters):
        if not torch.equal(state[name].cpu(), tensors[name].to(state[name].dtype)):
            raise UserError(
                f"the adapter has a tensor {name} that does not follow from its settings; training "
                "can go on from an adapter of this kind only if it was made here."
            )


def _cores(model: PeftModel, adapter: str) -> Iterator[tuple[str, LinearWithCore]]:
    """The layers that have LoRA-XS of this adapter, by name."""
    for name, module in model.named_modules():
        if isinstance(module, LinearWithCore) and adapter in module.core_r:
            yield name, module


def _buffers(model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """An adapter's buffers, such as VeRA's random projections.

    A buffer that layers share has the name that it has in the first of them.
    """
    buffers: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, buffer in _named_buffers(model, adapter):
        if id(buffer) not in seen:
            seen.add(id(buffer))
            buffers[name] = buffer
    return buffers


def _named_buffers(model: PeftModel, adapter: str) -> Iterator[tuple[str, Tensor]]:
    """An adapter's buffers, by each of the names that they have on disk."""
    for name, buffer in model.named_buffers(remove_duplicate=False):
        path = name.split(".")
        if adapter in path:
            yield ".".join(part for part in path if part != adapter), buffer
