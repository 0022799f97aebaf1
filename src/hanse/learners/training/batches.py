"""Examples as tensors: rows of one length, and the positions that have a label."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hanse.data.example import IGNORED, Example

NOTHING = torch.empty(0)


@dataclass(frozen=True)
class Batch:
    """Rows of one length, padded on the right.

    A causal model never looks to the right, so padding needs no attention mask. `ids` and `at` are
    on the host until the model is called: batches are joined there, and cached rows looked up. The
    tensors that losses use are on the device.
    """

    ids: Tensor  # (R, T) token ids; of pairs, first those with chosen answers: R = 2B
    at: Tensor  # (N,) flattened (R·T) positions that have a tag, or a label at their next token
    targets: Tensor  # (N,) these tags, or next tokens
    rows: Tensor  # (N,) the row of each; with choices: example · choices + choice
    choice: Tensor  # (B,) the right choice of each example, if there are choices
    words: Tensor | None  # (C,) the choices' tokens, if each is a single token: then R = N = B
    lengths: tuple[int, ...]  # (R,) tokens of each row, without padding
    choices: int  # C, 0 if the examples have none
    examples: int  # B
    verdicts: Tensor = NOTHING  # (B,) the verdict on each answer, if there is one
    pairs: bool = False  # there are two answers to each prompt
    sampled: bool = False  # some rows were drawn from a model, and will not be read again

    @property
    def tokens(self) -> int:
        """The number of tokens, without padding."""
        return sum(self.lengths)

    @property
    def items(self) -> int:
        """The number of items that a mean loss is over: labels, or examples that are judged."""
        judged = self.choices or self.pairs or len(self.verdicts)
        return self.examples if judged else len(self.targets)


def answer_scores(logits: Tensor, batch: Batch) -> Tensor:
    """(B, answers): the log-probability of each answer to each example's prompt.

    The answers are the choices, up to one constant for each example; or the chosen and the rejected
    answer; or the one answer.
    logits: (N, vocabulary), those of the batch's labelled positions.
    """
    if batch.words is not None:
        return logits[:, batch.words]
    per_token = logits.log_softmax(dim=1).gather(1, batch.targets[:, None])[:, 0]
    scores = torch.zeros(len(batch.lengths), device=per_token.device)
    scores = scores.index_add(0, batch.rows, per_token)
    return scores.view(2, -1).T if batch.pairs else scores.view(batch.examples, -1)


def to_device(tensors: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """Copy tensors of one dtype from the host to the device, all in one copy.

    The host does not wait until a GPU has copied them. On a processor the same tensors are
    returned.
    """
    if device.type == "cpu":
        return tensors
    sizes = [tensor.numel() for tensor in tensors]
    buffer = pinned_zeros((sum(sizes),), tensors[0].dtype, device)
    torch.cat([tensor.flatten() for tensor in tensors], out=buffer)
    parts = copy_pinned(buffer, device).split(sizes)
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def pinned_zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros on the host, in pinned memory if the device is a GPU."""
    return torch.zeros(tuple(shape), dtype=dtype, pin_memory=device.type == "cuda")


def copy_pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting; torch keeps the pinned memory until the copy is done."""
    return tensor.to(device, non_blocking=True)


def collate(examples: Sequence[Example], device: torch.device) -> Batch:
    """Put examples of one kind into one batch."""
    batch = replace(_collated(examples), sampled=any(example.sampled for example in examples))
    if examples[0].verdict is not None:
        verdicts = torch.tensor([example.verdict for example in examples])
        batch = replace(batch, verdicts=to_device((verdicts,), device)[0])
    tensors = {"targets": batch.targets, "rows": batch.rows, "choice": batch.choice}
    if batch.words is not None:
        tensors["words"] = batch.words
    copies = to_device(tuple(tensors.values()), device)
    return replace(batch, **dict(zip(tensors, copies, strict=True)))  # type: ignore[arg-type]


def _collated(examples: Sequence[Example]) -> Batch:
    if examples[0].tags:
        return _collate_tags(examples)
    if examples[0].rejected:
        return _collate_pairs(examples)
    if not examples[0].choices:
        return _collate_tokens(examples)
    if all(len(choice) == 1 for choice in examples[0].choices):
        return _collate_words(examples)
    return _collate_choices(examples)


def _collate_tokens(examples: Sequence[Example]) -> Batch:
    """One row for each example; a position has a label if its next token is learned."""
    ids = _padded([example.ids for example in examples])
    labels = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        labels[row, : len(example)] = torch.tensor(example.labels)
    rows, columns = torch.nonzero(labels[:, 1:] != IGNORED, as_tuple=True)
    return Batch(
        ids=ids,
        at=rows * ids.shape[1] + columns,
        targets=labels[rows, columns + 1],
        rows=rows,
        choice=torch.empty(0, dtype=torch.long),
        words=None,
        lengths=tuple(map(len, examples)),
        choices=0,
        examples=len(examples),
    )


def _collate_pairs(examples: Sequence[Example]) -> Batch:
    """Two rows for each example: those with the chosen answers, then those with the rejected."""
    chosen = [Example(e.ids[: e.rejected], e.labels[: e.rejected]) for e in examples]
    rejected = [Example(e.ids[e.rejected :], e.labels[e.rejected :]) for e in examples]
    return replace(_collate_tokens(chosen + rejected), pairs=True, examples=len(examples))


def _collate_tags(examples: Sequence[Example]) -> Batch:
    """One row for each example; a position has a label if a word begins there."""
    ids, tags = _padded([e.ids for e in examples]), _padded([e.tags for e in examples], IGNORED)
    rows, columns = torch.nonzero(tags != IGNORED, as_tuple=True)
    return Batch(
        ids=ids,
        at=rows * ids.shape[1] + columns,
        targets=tags[rows, columns],
        rows=rows,
        choice=torch.empty(0, dtype=torch.long),
        words=None,
        lengths=tuple(map(len, examples)),
        choices=0,
        examples=len(examples),
    )


def _collate_words(examples: Sequence[Example]) -> Batch:
    """One row for each example; its last position scores all choices, which are single tokens."""
    ids = _padded([example.ids for example in examples])
    last = torch.tensor([len(example) - 1 for example in examples])
    rows = torch.arange(len(examples))
    words = torch.tensor([choice[0] for choice in examples[0].choices])
    choice = torch.tensor([example.choice for example in examples])
    return Batch(
        ids=ids,
        at=rows * ids.shape[1] + last,
        targets=words[choice],
        rows=rows,
        choice=choice,
        words=words,
        lengths=tuple(map(len, examples)),
        choices=len(words),
        examples=len(examples),
    )


def _collate_choices(examples: Sequence[Example]) -> Batch:
    """One row for each example and choice; the tokens of the choice have labels."""
    rows = [
        Example(e.ids + choice, (IGNORED,) * len(e) + choice)
        for e in examples
        for choice in e.choices
    ]
    return replace(
        _collate_tokens(rows),
        choice=torch.tensor([example.choice for example in examples]),
        choices=len(examples[0].choices),
        examples=len(examples),
    )


def _padded(rows: Sequence[Sequence[int]], value: int = 0) -> Tensor:
    """(R, T): rows filled up with `value`; no loss depends on the padding of token ids."""
    ids = torch.full((len(rows), max(map(len, rows))), value)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    return ids


@dataclass(frozen=True)
class JoinedBatch:
    """The batches of K clients as one; each has as many rows and positions as the largest.

    ids: (K·R, T) tokens; lengths: those of each row, 0 for rows that only fill up.
    at: (N,) flattened (K·R·T) positions, client by client; counts: the number of each client's.
    """

    ids: Tensor
    lengths: tuple[int, ...]
    at: Tensor
    counts: list[int]


def join(batches: Sequence[Batch | None]) -> JoinedBatch:
    """Put the batches of several clients below each other; None: this client has no rows now."""
    present = [batch for batch in batches if batch is not None]
    rows, width = (max(batch.ids.shape[side] for batch in present) for side in (0, 1))
    ids = present[0].ids.new_zeros(len(batches), rows, width)
    lengths, positions = [], []
    for client, batch in enumerate(batches):
        known = () if batch is None else batch.lengths
        lengths += [*known, *[0] * (rows - len(known))]
        if batch is not None:
            height, length = batch.ids.shape
            ids[client, :height, :length] = batch.ids
            row = batch.at.div(length, rounding_mode="floor")
            positions.append((client * rows + row) * width + batch.at - row * length)
    counts = [0 if batch is None else len(batch.at) for batch in batches]
    return JoinedBatch(ids.flatten(0, 1), tuple(lengths), torch.cat(positions), counts)
