"""The base of the kinds of adapters that PEFT lacks: configuration, injection, registration."""

from dataclasses import dataclass
from typing import Any, ClassVar

from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PeftConfig
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch.nn import Module

from hanse.learners.injection.target_modules import is_linear


@dataclass
class OwnConfig(PeftConfig):
    """A configuration with the target modules, in the fields that PEFT's configurations have."""

    kind: ClassVar[str]  # its peft_type

    target_modules: str | list[str] | set[str] | None = None
    modules_to_save: list[str] | None = None
    exclude_modules: str | list[str] | None = None
    layers_to_transform: list[int] | None = None
    layers_pattern: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = self.kind


class OwnModel(BaseTuner):
    """Replaces linear layers by `tuner_layer_cls(layer, adapter's name, configuration)`."""

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: Module,
        target_name: str,
        parent: Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        kind: Any = self.tuner_layer_cls
        if isinstance(target, kind):
            target.update_layer(adapter_name, peft_config)
            return
        inner = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not is_linear(inner):
            raise ValueError(f"{current_key} is no linear layer")
        layer = kind(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


def register(config: type[OwnConfig], model: type[OwnModel]) -> None:
    """Register a kind of adapter with PEFT, which can load it from then on."""
    kind: Any = config.kind
    PEFT_TYPE_TO_CONFIG_MAPPING[kind] = config
    PEFT_TYPE_TO_TUNER_MAPPING[kind] = model
    PEFT_TYPE_TO_PREFIX_MAPPING[kind] = model.prefix
