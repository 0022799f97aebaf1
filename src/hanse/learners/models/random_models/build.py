"""A model with random weights and a LoRA adapter, and the loss of random tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from hanse.errors import UserError
from hanse.learners.adapters.lora import Lora
from hanse.learners.injection import inject
from hanse.learners.models import pretrained
from hanse.learners.models.head import is_causal
from hanse.learners.models.model_files import PACKAGED, REPOSITORY
from hanse.learners.models.random_models.shapes import SHAPES
from hanse.learners.step_cost import Loss
from hanse.registry import suggestion

ANSWER = 4  # of an encoder-decoder: its answer has a part as long as this of its input


@dataclass(frozen=True)
class RandomModel:
    """A model with random weights, whose adapter alone is trained.

    bf16: whether its weights are in bfloat16, and it computes in it; the adapter is in float32.
    """

    name: str
    model: Any
    trained: list[Parameter]
    bf16: bool = False

    @property
    def weights(self) -> list[Parameter]:
        """All weights, those of the adapter included."""
        return list(self.model.parameters())

    @property
    def parameters(self) -> int:
        """The number of the base model's weights."""
        return sum(p.numel() for p in self.weights) - self.trained_parameters

    @property
    def trained_parameters(self) -> int:
        """The number of the adapter's weights."""
        return sum(p.numel() for p in self.trained)

    def loss(self, rows: int, length: int) -> tuple[Loss, float]:
        """(loss, tokens) of a batch of so many rows of random tokens.

        An encoder-decoder reads `length` tokens of each row, and writes a quarter as many.
        """
        config = self.model.config
        draw = torch.Generator().manual_seed(0)
        device = self.trained[0].device

        def tokens(width: int) -> Tensor:
            ids = torch.randint(1, config.vocab_size, (rows, width), generator=draw)
            return ids.to(device)

        ids = tokens(length)
        if not config.is_encoder_decoder:
            return (lambda: self._mean(input_ids=ids, labels=ids)), float(rows * length)
        answer = tokens(max(1, length // ANSWER))
        return (
            lambda: self._mean(input_ids=ids, labels=answer),
            float(ids.numel() + answer.numel()),
        )

    def _mean(self, **inputs: Tensor) -> Tensor:
        kind = self.trained[0].device.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.bf16):
            loss: Tensor = self.model(**inputs, use_cache=False).loss
        return loss


def config_of(name: str) -> Any:
    """The configuration of a shape by its name, or of a model; its weights are not read.

    Raises UserError for an unknown name, and for a model that is neither a decoder nor an
    encoder-decoder.
    """
    if name in SHAPES:
        values = dict(SHAPES[name])
        return AutoConfig.for_model(values.pop("model_type"), **values)
    if not Path(name).exists() and name not in PACKAGED and not REPOSITORY.fullmatch(name):
        raise UserError(
            f"there is no model {name!r:.80}{suggestion(name, [*SHAPES, *PACKAGED])}; name a shape "
            f"({', '.join(SHAPES)}), a folder with a model, or a hub's id."
        )
    config = pretrained.find(name).config
    if not (config.is_encoder_decoder or is_causal(config)):
        raise UserError(
            f"{name} is a {type(config).__name__}, which writes no text; name a decoder (such as "
            "Llama) or an encoder-decoder (such as T5)."
        )
    return config


def size(config: Any) -> int:
    """The number of a model's weights, without any of them in memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in _empty(config, torch.float32).parameters())


def build(
    name: str, config: Any, rank: int, device: torch.device, bf16: bool = False
) -> RandomModel:
    """The model of a configuration with random weights and LoRA of a rank."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _empty(config, torch.bfloat16 if bf16 else torch.float32).to(device).eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        task = "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM"
        adapted, attached = inject.attach(model, Lora(r=rank), 0, task)
    attached.set_gradients()
    return RandomModel(name, adapted, list(attached.parameters.values()), bf16)


def _empty(config: Any, dtype: torch.dtype) -> Any:
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return kind.from_config(config, dtype=dtype)
