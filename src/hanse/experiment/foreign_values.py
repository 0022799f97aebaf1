"""Values that other tools write for our settings, such as `max_steps: -1` for no limit."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from hanse.journal.yaml_text import Place

# Names of AdamW in transformers, axolotl and LLaMA-Factory. Those with eight bits or with pages
# save memory of the optimizer's state, which is small for adapters.
ADAMW = (
    *("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adamw_hf"),
    *("adamw_torch_8bit", "adamw_torch_4bit", "adamw_apex_fused", "adamw_anyprecision"),
    *("adamw_bnb_8bit", "adamw_8bit", "paged_adamw", "paged_adamw_32bit", "paged_adamw_8bit"),
)
NAMES = re.compile(r"\w+(\s*,\s*\w+)*")  # "q_proj,v_proj"; no regular expression


def _optimizer(value: Any) -> Any:
    name = value.lower() if isinstance(value, str) else value
    return "adamw" if name in ADAMW else name


def _quantization(value: Any) -> Any:
    if value is None or value is False or value == 0:
        return "none"
    bits = re.fullmatch(r"([48])[-_ ]?(bit)?", str(value), re.IGNORECASE)
    return {"4": "nf4", "8": "int8"}[bits[1]] if bits else value


def _names(value: Any) -> Any:
    """The names in a list with commas; `all-linear` and regular expressions stay as they are."""
    if not isinstance(value, str) or not NAMES.fullmatch(value.strip()):
        return value
    if value.strip() in ("all", "all_linear"):
        return "all-linear"
    return [name.strip() for name in value.split(",")]


def _one_of(values: Mapping[Any, Any]) -> Callable[[Any], Any]:
    return lambda value: values.get(value, value) if isinstance(value, str | int) else value


_TARGETS = ("target_modules", "feedforward_modules", "target_parameters")
_CHANGES: dict[str, Callable[[Any], Any]] = {
    "train.optim": _optimizer,
    "train.max_steps": _one_of({-1: None}),
    "train.lr_scheduler_type": _one_of({"constant_with_warmup": "constant"}),
    "model.quantization": _quantization,
    "adapter": _one_of({"qlora": "lora"}),
}


def ours(place: Place, value: Any) -> Any:
    """The value of a setting as we write it; place: without the keys that name a client."""
    if place[:1] == ("models",):
        place = place[2:] if place[2:3] == ("adapter",) else ("model", *place[2:])
    if place[:1] == ("adapter",) and place[-1] in _TARGETS:
        return _names(value)
    change = _CHANGES.get(".".join(map(str, place)))
    return change(value) if change else value
