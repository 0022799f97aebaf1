"""What a model says after a prompt, or having read it, up to the end of its turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import TextStreamer

from hanse.data.tokenization.vocabulary import refuse_beyond
from hanse.errors import UserError
from hanse.learners.backbone import Backbone
from hanse.learners.injection import virtual_tokens

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
    """What the model says to each prompt (token ids, at least one), whichever are beside it.

    adapter: none for the base model alone. hear: told of a single prompt's answer word by word.
    A prompt that leaves no room for the answer loses its left; an encoder's has room of its own.
    Raises UserError if the answer alone would be longer than what the model can read, or for a
    token that it has no embedding of.
    """
    for prompt in prompts:
        refuse_beyond(prompt, backbone.tokenizer, backbone.vocabulary, "the prompt")
    room = _room(backbone, adapter, decoding)
    rows = [_last(prompt, room, backbone.tokenizer) for prompt in prompts]
    said: dict[int, str] = {}
    with (
        backbone.for_generation(adapter) as model,
        torch.inference_mode(),
        torch.random.fork_rng(),
        backbone.autocast(),
    ):
        torch.manual_seed(decoding.seed)  # transformers draws from torch's global generator
        stops = set(model.generation_config.eos_token_id or ())
        for group in _groups(rows, backbone, adapter):
            found = _generated(backbone, adapter, model, [rows[at] for at in group], decoding, hear)
            for at, row in zip(group, found, strict=True):
                said[at] = backbone.text(_until(row, stops))
    return [said[at] for at in range(len(rows))]


def _room(backbone: Backbone, adapter: str | None, decoding: Decoding) -> int | None:
    """Most tokens of a prompt, if there is a limit; raises UserError if there is room for none."""
    limit, apart = backbone.positions, backbone.head.splits
    if limit is None:
        return None
    # Virtual tokens take places of the decoder, unless an encoder reads them.
    cached = virtual_tokens.are_cached(backbone.model, adapter)
    own = virtual_tokens.count(backbone.model, adapter) if cached or not apart else 0
    if own + decoding.max_new_tokens >= limit:
        beside = f", {own} of them the adapter's own" if own else ""
        raise UserError(
            f"max_new_tokens is {decoding.max_new_tokens}, but {backbone.name} reads at most "
            f"{limit} tokens{beside}, prompt and answer together; lower it."
        )
    return None if apart else limit - own - decoding.max_new_tokens


def _groups(
    rows: Sequence[Sequence[int]], backbone: Backbone, adapter: str | None
) -> list[list[int]]:
    """The rows that are generated together, by their places: all, unless padding would be seen.

    Padding on the left would part virtual tokens in the cache from the text: a sliding window
    counts its places. So rows of one length are generated together.
    """
    if backbone.head.splits or not virtual_tokens.are_cached(backbone.model, adapter):
        return [list(range(len(rows)))]
    alike: dict[int, list[int]] = {}
    for at, row in enumerate(rows):
        alike.setdefault(len(row), []).append(at)
    return list(alike.values())


def _generated(
    backbone: Backbone,
    adapter: str | None,
    model: Any,
    rows: Sequence[Sequence[int]],
    decoding: Decoding,
    hear: Hear | None,
) -> list[list[int]]:
    """The tokens that follow each row; model: what speaks with the adapter."""
    apart = backbone.head.splits
    chosen: dict[str, Any] = {"do_sample": False}
    if decoding.temperature > 0:  # top_k has a default of 50, which nobody asked for
        chosen = {"do_sample": True, "temperature": decoding.temperature, "top_k": 0}
    embedded = virtual_tokens.are_embedded(backbone.model, adapter)
    own = virtual_tokens.count(backbone.model, adapter) if embedded else 0
    ids, mask = _padded([[0] * own + list(row) for row in rows], apart)
    ids, mask = ids.to(backbone.device), mask.to(backbone.device)
    given = {"input_ids": ids}
    if embedded:
        given = {"inputs_embeds": virtual_tokens.embedded(backbone.model, ids, mask)}
    found = model.generate(
        **given,
        attention_mask=mask,
        max_new_tokens=decoding.max_new_tokens,
        remove_invalid_values=True,  # a diverged model says nonsense rather than fail
        streamer=_Aloud(backbone.tokenizer, hear) if hear else None,
        **chosen,
    )
    begun = 1 if apart else 0 if embedded else ids.shape[1]
    tokens: list[list[int]] = found[:, begun:].tolist()
    return tokens


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
