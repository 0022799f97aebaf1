"""The cut of a model into bottom layers, middle and top layers."""

from dataclasses import dataclass
from typing import Any

from hanse.errors import UserError
from hanse.learners.models.head import is_causal

# Settings by which a layer computes otherwise in another place.
BY_NUMBER = ("scale_attn_by_inverse_layer_idx",)


@dataclass(frozen=True)
class Cut:
    """The numbers of a model's bottom, middle and top layers."""

    bottom: int
    middle: int
    top: int

    @property
    def layers(self) -> int:
        """The number of all layers."""
        return self.bottom + self.middle + self.top

    @property
    def adapter_layers(self) -> list[int]:
        """The layers that are trained: those of bottom and top, counted from 0."""
        return [*range(self.bottom), *range(self.layers - self.top, self.layers)]


def cut(name: str, config: Any, bottom: int, top: int) -> Cut:
    """The cut of a model of this configuration; raises UserError if it cannot be cut so.

    name: the model's, for messages.
    """
    if getattr(config, "is_encoder_decoder", False) or not is_causal(config):
        raise UserError(
            f"{name} is no causal language model, and an emulator is made of one; choose another "
            "model, such as smollm2-135m."
        )
    text = config.get_text_config()
    if getattr(config, "quantization_config", None):
        raise UserError(
            f"the weights of {name} are quantized, or an emulator's, already; make an emulator of "
            "the model as it was before."
        )
    for setting in BY_NUMBER:
        if getattr(text, setting, False):
            raise UserError(
                f"{name} has {setting}, by which a layer computes otherwise in another place; "
                "choose a model without it."
            )
    layers = int(text.num_hidden_layers)
    if layers - bottom - top < 1:
        raise UserError(
            f"{name} has {layers} layers, and {bottom} at the bottom and {top} at the top leave no "
            "middle that could be made smaller; lower --bottom or --top, or choose a deeper model."
        )
    return Cut(bottom, layers - bottom - top, top)
