"""What a model says after a prompt, or having read it, up to the end of its turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import TextStreamer

from hanse.errors import UserError
from hanse.learners.backbone import Backbone

Hear = Callable[[str], None]  # gets the pieces of an answer as they are said


@dataclass(frozen=True)
class Decoding:
    """How many tokens an answer may have, and how each is chosen.

    temperature: 0 takes the most likely token; otherwise they are drawn, seeded by `seed`.
    """

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0


def continued(
    backbone: Backbone,
    adapter: str | None,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    hear: Hear | None = None,
) -> list[str]:
    """What the model says to each prompt (token ids, at least one), in one batch.

    adapter: none for the base model alone. hear: told of a single prompt's answer word by word.
    A prompt that leaves no room for the answer loses its left; an encoder's has room of its own.
    Raises UserError if the answer alone would be longer than what the model can read.
    """
    limit = backbone.positions
    if limit is not None and decoding.max_new_tokens >= limit:
        raise UserError(
            f"max_new_tokens is {decoding.max_new_tokens}, but {backbone.name} reads at most "
            f"{limit} tokens, prompt and answer together; lower it."
        )
    apart = backbone.head.splits
    room = None if limit is None or apart else limit - decoding.max_new_tokens
    ids, mask = _padded([_last(prompt, room, backbone.tokenizer) for prompt in prompts], apart)
    chosen: dict[str, Any] = {"do_sample": False}
    if decoding.temperature > 0:  # top_k has a default of 50, which nobody asked for
        chosen = {"do_sample": True, "temperature": decoding.temperature, "top_k": 0}
    with (
        backbone.speaking(adapter) as model,
        torch.inference_mode(),
        torch.random.fork_rng(),
        backbone.autocast(),
    ):
        torch.manual_seed(decoding.seed)  # transformers draws from torch's global generator
        found = model.generate(
            input_ids=ids.to(backbone.device),
            attention_mask=mask.to(backbone.device),
            max_new_tokens=decoding.max_new_tokens,
            remove_invalid_values=True,  # a diverged model says nonsense rather than fail
            streamer=_Aloud(backbone.tokenizer, hear) if hear else None,
            **chosen,
        )
    stops = set(model.generation_config.eos_token_id or ())
    begun = 1 if apart else ids.shape[1]
    return [backbone.text(_until(row, stops)) for row in found[:, begun:].tolist()]


class _Aloud(TextStreamer):
    """Passes an answer on in whole words."""

    def __init__(self, tokenizer: Any, hear: Hear) -> None:
        super().__init__(
            tokenizer,
            skip_prompt=True,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        self.hear = hear

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.hear(text)


def _last(prompt: Sequence[int], room: int | None, tokenizer: Any) -> list[int]:
    """At most `room` tokens of a prompt, its last; its first stays if every text begins so."""
    gone = 0 if room is None else max(len(prompt) - room, 0)
    first = int(0 < gone < len(prompt) - 1 and prompt[0] == tokenizer.bos_token_id)
    return [*prompt[:first], *prompt[gone + first :]]


def _padded(rows: Sequence[Sequence[int]], begin: bool) -> tuple[Tensor, Tensor]:
    """(R, T) ids and their mask.

    begin: whether they begin together, as in training; else they end together, since what is said
        follows all of them.
    """
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        start = 0 if begin else ids.shape[1] - len(row)
        ids[index, start : start + len(row)] = torch.tensor(row)
        mask[index, start : start + len(row)] = 1
    return ids, mask


def _until(row: Sequence[int], stops: set[int]) -> list[int]:
    """The tokens before the first one that ends the turn."""
    end = next((index for index, token in enumerate(row) if token in stops), len(row))
    return list(row[:end])
