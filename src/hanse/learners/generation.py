"""Answers to prompts, generated up to the end of the model's turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import TextStreamer

from hanse.data.example import Example, Lost
from hanse.data.tokenization.tokenizer import targets
from hanse.data.tokenization.vocabulary import refuse_beyond
from hanse.errors import UserError
from hanse.learners.backbone import Backbone
from hanse.learners.injection import virtual_tokens

OnText = Callable[[str], None]  # receives the pieces of an answer as they are generated


@dataclass(frozen=True)
class Decoding:
    """Settings of generation: the length of an answer, and the choice of its tokens.

    temperature: 0 takes the most likely token; otherwise tokens are drawn, seeded by `seed`.
    """

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0


def generate(
    backbone: Backbone,
    adapter: str | None,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    on_text: OnText | None = None,
) -> list[str]:
    """The answer to each prompt; it does not depend on the other prompts.

    prompts: token ids, at least one each. adapter: None for the base model alone.
    on_text: receives the answer to a single prompt word by word.
    A prompt that leaves no room for the answer is cut on the left; a prompt that an encoder reads
    does not take the answer's room. Raises UserError if the answer alone would be longer than the
    model can read, or for a token that it has no embedding of.
    """
    answers = _answers(backbone, adapter, prompts, decoding, on_text)
    return [backbone.text(answer.tokens) for answer in answers]


def continuations(
    backbone: Backbone, adapter: str | None, prompts: Sequence[Sequence[int]], decoding: Decoding
) -> list[Example]:
    """An example of each prompt and its answer, whose tokens are labelled, with its end token.

    The arguments and errors are those of `generate`. Raises UserError for an empty prompt, too, and
    for a model that writes nothing.
    """
    if not backbone.head.generates_text:
        raise UserError(
            f"{backbone.name} writes no answers, which this objective asks for in training; choose "
            "a causal language model, such as smollm2-135m."
        )
    if not all(prompts):
        raise UserError(
            "an example has no prompt that the model could answer; let the rows have messages, or "
            "prompt and completion."
        )
    examples = []
    for prompt, answer in zip(prompts, _answers(backbone, adapter, prompts, decoding), strict=True):
        ids = (*answer.prompt, *answer.tokens, *answer.end)
        start = len(answer.prompt)
        labels = targets(ids, [place >= start for place in range(len(ids))])
        text = backbone.text(answer.tokens)
        lost = Lost.PROMPT if start < len(prompt) else Lost.NOTHING
        examples.append(Example(ids, labels, prompt=start, answer=text, lost=lost, sampled=True))
    return examples


class _Answer(NamedTuple):
    """The tokens of a prompt that was read, of its answer, and the token that ended the answer.

    The last is missing from an answer that reached the limit.
    """

    prompt: list[int]
    tokens: list[int]
    end: list[int]


def _answers(
    backbone: Backbone,
    adapter: str | None,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    on_text: OnText | None = None,
) -> list[_Answer]:
    """The answer to each prompt, as tokens; the arguments are those of `generate`."""
    for prompt in prompts:
        refuse_beyond(prompt, backbone.tokenizer, backbone.vocabulary, "the prompt")
    room = _room(backbone, adapter, decoding)
    rows = [_last(prompt, room, backbone.tokenizer) for prompt in prompts]
    answers: dict[int, _Answer] = {}
    with (
        backbone.for_generation(adapter) as model,
        torch.inference_mode(),
        torch.random.fork_rng(),
        backbone.autocast(),
    ):
        torch.manual_seed(decoding.seed)  # transformers draws from torch's global generator
        stops = set(model.generation_config.eos_token_id or ())
        for group in _groups(rows, backbone, adapter):
            chosen = [rows[index] for index in group]
            generated = _generated(backbone, adapter, model, chosen, decoding, on_text)
            for index, tokens in zip(group, generated, strict=True):
                end = next((at for at, token in enumerate(tokens) if token in stops), len(tokens))
                answers[index] = _Answer(rows[index], tokens[:end], tokens[end : end + 1])
    return [answers[index] for index in range(len(rows))]


def _room(backbone: Backbone, adapter: str | None, decoding: Decoding) -> int | None:
    """The most tokens of a prompt, None for any number; raises UserError if there is no room."""
    limit, separate = backbone.positions, backbone.head.splits
    if limit is None:
        return None
    # Virtual tokens take positions of the decoder, unless an encoder reads them.
    cached = virtual_tokens.are_cached(backbone.model, adapter)
    virtual = virtual_tokens.count(backbone.model, adapter) if cached or not separate else 0
    if virtual + decoding.max_new_tokens >= limit:
        beside = f", {virtual} of them the adapter's own" if virtual else ""
        raise UserError(
            f"max_new_tokens is {decoding.max_new_tokens}, but {backbone.name} reads at most "
            f"{limit} tokens{beside}, prompt and answer together; lower it."
        )
    return None if separate else limit - virtual - decoding.max_new_tokens


def _groups(
    rows: Sequence[Sequence[int]], backbone: Backbone, adapter: str | None
) -> list[list[int]]:
    """The indices of rows that are generated together: all, unless padding would change answers.

    Padding on the left would separate virtual tokens in the cache from the text, since a sliding
    window counts padding, too. Only rows of one length are generated together then.
    """
    if backbone.head.splits or not virtual_tokens.are_cached(backbone.model, adapter):
        return [list(range(len(rows)))]
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(index)
    return list(by_length.values())


def _generated(
    backbone: Backbone,
    adapter: str | None,
    model: Any,
    rows: Sequence[Sequence[int]],
    decoding: Decoding,
    on_text: OnText | None,
) -> list[list[int]]:
    """The tokens that follow each row; model: the one that generates with the adapter."""
    separate = backbone.head.splits
    sampling: dict[str, Any] = {"do_sample": False}
    if decoding.temperature > 0:  # transformers' default of top_k is 50
        sampling = {"do_sample": True, "temperature": decoding.temperature, "top_k": 0}
    embedded = virtual_tokens.are_embedded(backbone.model, adapter)
    virtual = virtual_tokens.count(backbone.model, adapter) if embedded else 0
    ids, mask = _padded([[0] * virtual + list(row) for row in rows], separate)
    ids, mask = ids.to(backbone.device), mask.to(backbone.device)
    inputs = {"input_ids": ids}
    if embedded:
        inputs = {"inputs_embeds": virtual_tokens.embedded(backbone.model, ids, mask)}
    output = model.generate(
        **inputs,
        attention_mask=mask,
        max_new_tokens=decoding.max_new_tokens,
        remove_invalid_values=True,  # a diverged model then generates nonsense instead of failing
        streamer=_WordStreamer(backbone.tokenizer, on_text) if on_text else None,
        **sampling,
    )
    start = 1 if separate else 0 if embedded else ids.shape[1]
    tokens: list[list[int]] = output[:, start:].tolist()
    return tokens


class _WordStreamer(TextStreamer):
    """Passes an answer on in whole words."""

    def __init__(self, tokenizer: Any, on_text: OnText) -> None:
        super().__init__(
            tokenizer,
            skip_prompt=True,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        self.on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.on_text(text)


def _last(prompt: Sequence[int], room: int | None, tokenizer: Any) -> list[int]:
    """The last tokens of a prompt, at most `room`; a token that begins every text is kept."""
    removed = 0 if room is None else max(len(prompt) - room, 0)
    first = int(0 < removed < len(prompt) - 1 and prompt[0] == tokenizer.bos_token_id)
    return [*prompt[:first], *prompt[removed + first :]]


def _padded(rows: Sequence[Sequence[int]], on_right: bool) -> tuple[Tensor, Tensor]:
    """(R, T) ids and their mask.

    on_right: pad on the right, as in training; else on the left, so that answers follow all rows.
    """
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        start = 0 if on_right else ids.shape[1] - len(row)
        ids[index, start : start + len(row)] = torch.tensor(row)
        mask[index, start : start + len(row)] = 1
    return ids, mask
