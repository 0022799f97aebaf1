"""Opens a saved adapter again, before a run counts as finished."""

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
from hanse.learners.injection.adapter_files import kind_folders, read
from hanse.learners.injection.adapter_layout import WEIGHTS
from hanse.learners.injection.attached_adapter import PROMPT
from hanse.learners.training.batches import Batch, to_device
from hanse.tensors.named import refuse_unlike

log = logging.getLogger(__name__)

SMALL = 200_000_000  # parameters of a base model; a larger one is not copied to compare outputs
NEAR = 1e-2  # of the largest output: above rounding errors, below those of a wrong scaling
WRAPPED = ("base_layer", "original_module")  # PEFT's names of the modules that it wraps
DEFAULT = "default"  # PEFT's name for an adapter


def check(folder: Path, backbone: Backbone, batch: Batch | None, wanted: Tensor | None) -> None:
    """Raise UserError unless PEFT, and `adapter.from`, can open the adapter in a folder.

    Names and shapes are compared with a base model on the meta device, which takes no memory. A
    small base model is copied, and PEFT's outputs are compared with those of training.
    wanted: the trained model's outputs for the batch; None: outputs are not compared.
    """
    bare = partial(_copied if backbone.weights <= SMALL else _empty, backbone.model)
    try:
        _empty(backbone.model)
    except Exception as error:  # in the code of the base model, whatever the adapter
        _unchecked("its base model cannot be made without weights", error)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user saw them when training began
            opened = open_adapter(folder, bare())
            _read(folder, bare(), backbone)
    except NotImplementedError as error:  # of an operation that the meta device lacks
        _unchecked("that would take the memory of a second base model", error)
        return
    except Exception as error:  # with any error, nobody else could use the adapter
        reason = _line(error) or type(error).__name__
        raise UserError(f"the saved adapter cannot be opened again: {reason:.400}.") from error
    has_values = not any(tensor.is_meta for tensor in _named(opened).values())
    if batch is not None and wanted is not None and has_values and not backbone.bf16:
        _refuse_other_outputs(opened, backbone, batch, wanted)


def _unchecked(reason: str, error: Exception) -> None:
    """Log that the adapter was not opened again."""
    log.warning("the saved adapter was not opened again: %s (%.200s)", reason, _line(error))


def _line(error: Exception) -> str:
    """The text of an error in one line, without its full stop."""
    return " ".join(str(error).split()).rstrip(".")


def _empty(model: PeftModel) -> Module:
    """The base model without adapters, on the meta device."""
    base: Any = model.get_base_model()
    with torch.device("meta"):
        bare: Module = type(base)(base.config)
    return bare.eval()


def _copied(model: PeftModel) -> Module:
    """The base model without adapters, with copied weights; on the meta device if quantized."""
    bare = _empty(model)
    live = {
        ".".join(part for part in name.split(".") if part not in WRAPPED): tensor
        for name, tensor in _named(model.get_base_model()).items()
    }
    copies: dict[int, Any] = {}  # by the original's identity: embeddings may be the output layer
    for name, empty in _named(bare).items():
        if name not in live or not _unquantized(live[name], empty):
            return _empty(model)
        module, _, attribute = name.rpartition(".")
        if (key := id(live[name])) not in copies:
            copy = live[name].detach().clone()
            copies[key] = Parameter(copy, False) if isinstance(empty, Parameter) else copy
        setattr(bare.get_submodule(module), attribute, copies[key])
    return bare


def _unquantized(live: Tensor, empty: Tensor) -> bool:
    """Tell if a tensor has the type and shape that it has in the published base model."""
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


def open_adapter(folder: Path, bare: Module) -> PeftModel:
    """The adapter on this base model, loaded by PEFT; raises ValueError if a tensor is missing.

    Several kinds are loaded one after another: each is put around those before it.
    """
    options: dict[str, Any] = {"low_cpu_mem_usage": any(t.is_meta for t in _named(bare).values())}
    options |= {"torch_device": "cpu", "autocast_adapter_dtype": False}
    return [_loaded(place, bare, options) for place in kind_folders(folder)][-1].eval()


def _loaded(folder: Path, bare: Module, options: dict[str, Any]) -> PeftModel:
    """One kind, put into this base model by PEFT."""
    opened = PeftModel.from_pretrained(bare, str(folder), **options)
    keys = opened.load_adapter(str(folder), DEFAULT, **options)
    named, missing = _named(opened), set(keys.missing_keys)
    loaded = {id(tensor) for name, tensor in named.items() if name not in missing}
    # PEFT reads the prompt by other means, and writes some tensors under a second name.
    known = {PROMPT, *(name.replace(f".{DEFAULT}", "") for name in _second_names(folder))}
    unmatched = [name for name in keys.missing_keys if id(named.get(name)) not in loaded]
    unmatched += [name for name in keys.unexpected_keys if name not in known]
    if unmatched:
        raise ValueError(f"PEFT and the file do not agree about {unmatched[0]}")
    return opened


def _second_names(folder: Path) -> list[str]:
    """The names in a file that contain PEFT's name of the adapter."""
    with safe_open(folder / WEIGHTS, "pt") as file:
        return [name for name in file.keys() if f".{DEFAULT}." in name]  # noqa: SIM118


def _read(folder: Path, bare: Module, backbone: Backbone) -> None:
    """Read the adapter as `adapter.from` does; raises UserError if it does not fit the model."""
    settings, tensors = read(folder)
    copy = Backbone(
        "", bare, None, backbone.device, backbone.compute_mode, backbone.head, backbone.fresh
    )
    copy.activation_cache = False
    live = copy.parameters(copy.attach(settings, 0))
    refuse_unlike(live, {name: tensor for name, tensor in tensors.items() if name in live})


def _refuse_other_outputs(
    opened: PeftModel, backbone: Backbone, batch: Batch, wanted: Tensor
) -> None:
    """Raise UserError if PEFT's model has other outputs than the trained one."""
    lengths = torch.tensor(batch.lengths)
    inputs = to_device((batch.ids, batch.at, lengths), backbone.device)
    with torch.no_grad():
        outputs = backbone.head.logits(opened, *inputs)
    error, most = (float(t.abs().max()) for t in (outputs.float() - wanted, wanted))
    if not error <= NEAR * most:
        raise UserError(
            f"the saved adapter has other outputs than the trained one: with PEFT an output of "
            f"at most {most:.3g} differs by {error:.3g}."
        )
