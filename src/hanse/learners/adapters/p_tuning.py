"""P-tuning (Liu et al. 2021, 2103.10385): an encoder computes trained vectors before every text."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.injection.adapter import Adapter, VirtualTokens

with lazy_imports():
    import peft

    from hanse.learners.injection import virtual_tokens

LAYERS = 2  # of every MLP, and of an LSTM unless it is set


@dataclass(frozen=True)
class PTuning(Adapter):
    """An encoder turns num_virtual_tokens embeddings into the vectors before the text.

    Embeddings and encoder are trained and sent. As in PEFT, only the vectors of the trained encoder
    are saved; a run that goes on from them trains the vectors themselves, as prompt tuning does.
    encoder_hidden_size: the encoder's width; none: that of the model's embeddings.
    encoder_num_layers, encoder_dropout: of an LSTM; an MLP has two hidden layers and no dropout.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str] = "P_TUNING"

    num_virtual_tokens: VirtualTokens = 20
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    encoder_hidden_size: Annotated[int, Field(ge=1, le=16_384)] | None = None
    encoder_num_layers: Annotated[int, Field(ge=1, le=64)] = LAYERS
    encoder_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def config(self, model: Any) -> "peft.PromptEncoderConfig":
        lstm = self.encoder_reparameterization_type == "LSTM"
        if not lstm and (self.encoder_num_layers != LAYERS or self.encoder_dropout):
            raise UserError(
                "adapter.p_tuning: encoder_num_layers and encoder_dropout are settings of an LSTM, "
                "but the encoder is an MLP; set encoder_reparameterization_type: LSTM, or leave "
                "them out."
            )
        if self.encoder_dropout and self.encoder_num_layers == 1:
            raise UserError(
                "adapter.p_tuning: encoder_dropout works between the layers of an LSTM, and there "
                "is one; set encoder_num_layers to 2 or more, or leave encoder_dropout out."
            )
        sizes = virtual_tokens.sizes(model)
        return peft.PromptEncoderConfig(num_transformer_submodules=1, **sizes, **asdict(self))

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Adapter:
        """Prompt tuning: the file holds the vectors and no encoder."""
        return PromptTuning(num_virtual_tokens=written["num_virtual_tokens"])
