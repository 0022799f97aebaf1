"""Emulators whose middle is in another form than transformers' layers, in transformers' terms.

Their config.json names this form as a quantization, so that `from_pretrained` calls this module,
which puts the right modules in place before tensors are read. Without hanse, transformers warns of
an unknown quantization and loads the model all the same, with random matrices in the middle.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from hanse import registry
from hanse.learners.models.emulators.compressor import FOLDER, Compressor
from hanse.learners.models.emulators.stand_ins import CodedLinear

METHOD = "hanse_emulator"
MOST = 1_000_000  # the largest size of a module


class StoredForm(QuantizationConfigMixin):
    """The compressor of a middle, and the size of each module in place of a linear layer."""

    def __init__(
        self, compressor: Mapping[str, Any], modules: Mapping[str, int], **others: Any
    ) -> None:
        self.quant_method: Any = METHOD
        self.compressor, self.modules = dict(compressor), dict(modules)


class _Loader(HfQuantizer):
    """Puts empty modules of the stored form into a model before its tensors are read."""

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        form: Any = self.quantization_config
        compressor = built(form.compressor)
        for name, size in form.modules.items():
            if type(size) is not int or not 0 < size <= MOST:
                raise ValueError(f"config.json gives {name} the size {size!r:.40}")
            put(model, name, compressor.hollow(model.get_submodule(name), size))
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        for module in model.modules():
            if isinstance(module, CodedLinear):
                module.mark()
        return model

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


@cache
def register() -> None:
    """Let transformers know the form."""
    register_quantization_config(METHOD)(StoredForm)
    register_quantizer(METHOD)(_Loader)


def built(spec: Mapping[str, Any]) -> Compressor:
    """The compressor that a spec describes, which must be one of the package.

    Raises ValueError for another name, also that of a file of Python, which is never run, and
    UserError for wrong settings.
    """
    name = registry.split(FOLDER, spec)[0]
    if name not in registry.names(FOLDER):
        raise ValueError(f"there is no compressor {name!r:.80}")
    part = registry.build(FOLDER, spec)
    assert isinstance(part, Compressor)
    return part


def put(model: Any, name: str, module: Any) -> None:
    """Put a module into a model under a full name, in place of the one that is there."""
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)
