"""Examples as tensors: rows of one length, and where in them something is learned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hanse.data.example import IGNORED, Example


@dataclass(frozen=True)
class Batch:
    """Rows of one length, padded on the right.

    A causal model never looks to the right, so padding needs no attention mask. `ids` and `at` are
    on the host, where batches are joined and rows looked up, until the model is called; what a loss
    looks at is on the device.
    """

    ids: Tensor  # (R, T) token ids
    at: Tensor  # (N,) places in the flattened (R·T) positions whose next token is labelled, or tag
    targets: Tensor  # (N,) those next tokens, or tags
    rows: Tensor  # (N,) the row of each; for choices: (example · choices + choice)
    choice: Tensor  # (B,) the right choice of each example, if they have choices
    words: Tensor | None  # (C,) the choices' tokens, if each is one token: then R = N = B
    lengths: tuple[int, ...]  # (R,) tokens of each row, without padding
    choices: int  # C, 0 if the examples have none
    examples: int  # B

    @property
    def tokens(self) -> int:
        """What is read, without padding."""
        return sum(self.lengths)

    @property
    def items(self) -> int:
        """What a mean loss is a mean over: examples with choices, or labelled tokens."""
        return self.examples if self.choices else len(self.targets)


def choice_scores(logits: Tensor, batch: Batch) -> Tensor:
    """(B, C): the log-probability of each choice, up to one constant for each example.

    logits: (N, vocabulary), those of the batch's labelled positions.
    """
    if batch.words is not None:
        return logits[:, batch.words]
    each = logits.log_softmax(dim=1).gather(1, batch.targets[:, None])[:, 0]
    total = torch.zeros(batch.examples * batch.choices, device=each.device)
    return total.index_add(0, batch.rows, each).view(batch.examples, batch.choices)


def placed(tensors: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """Tensors of one dtype on the device, where they are wanted next: one copy for all of them.

    They come from the host, which does not wait for a GPU to have copied them; a processor gets
    the very tensors.
    """
    if device.type == "cpu":
        return tensors
    sizes = [tensor.numel() for tensor in tensors]
    whole = staged((sum(sizes),), tensors[0].dtype, device)
    torch.cat([tensor.flatten() for tensor in tensors], out=whole)
    parts = sent(whole, device).split(sizes)
    return [part.view(like.shape) for part, like in zip(parts, tensors, strict=True)]


def staged(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros on the host, in pinned memory if that is what the device copies from."""
    return torch.zeros(tuple(shape), dtype=dtype, pin_memory=device.type == "cuda")


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A staged tensor on the device; torch keeps the pinned memory until it has been copied."""
    return tensor.to(device, non_blocking=True)


def collate(examples: Sequence[Example], device: torch.device) -> Batch:
    """Examples as one batch; all with choices, or none."""
    batch = _collated(examples)
    own = {"targets": batch.targets, "rows": batch.rows, "choice": batch.choice}
    if batch.words is not None:
        own["words"] = batch.words
    there = placed(tuple(own.values()), device)
    return replace(batch, **dict(zip(own, there, strict=True)))  # type: ignore[arg-type]


def _collated(examples: Sequence[Example]) -> Batch:
    if examples[0].tags:
        return _collate_tags(examples)
    if not examples[0].choices:
        return _collate_tokens(examples)
    if all(len(choice) == 1 for choice in examples[0].choices):
        return _collate_words(examples)
    return _collate_choices(examples)


def _collate_tokens(examples: Sequence[Example]) -> Batch:
    """One row for each example; a position is labelled if its next token is to be learned."""
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


def _collate_tags(examples: Sequence[Example]) -> Batch:
    """One row for each example; a position is labelled if a word begins there."""
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
    """One row for each example: the last position tells all one-token choices apart."""
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
    """One row for each example and choice, labelled on the choice's tokens."""
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
    """(R, T) ids; of those that are read, the padding's value is never looked at."""
    ids = torch.full((len(rows), max(map(len, rows))), value)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    return ids


@dataclass(frozen=True)
class Joined:
    """The batches of several clients as one: as many rows and places for each as for the largest.

    ids: (K·R, T) tokens; lengths: of each row, 0 for those that only fill up.
    at: (N,) places in the flattened (K·R·T) positions, client by client; counts: how many of each.
    """

    ids: Tensor
    lengths: tuple[int, ...]
    at: Tensor
    counts: list[int]


def joined(batches: Sequence[Batch | None]) -> Joined:
    """Put batches under each other; None has no rows of its own."""
    there = [batch for batch in batches if batch is not None]
    rows, width = (max(batch.ids.shape[side] for batch in there) for side in (0, 1))
    ids = there[0].ids.new_zeros(len(batches), rows, width)
    lengths, places = [], []
    for member, batch in enumerate(batches):
        own = () if batch is None else batch.lengths
        lengths += [*own, *[0] * (rows - len(own))]
        if batch is not None:
            height, length = batch.ids.shape
            ids[member, :height, :length] = batch.ids
            row = batch.at.div(length, rounding_mode="floor")
            places.append((member * rows + row) * width + batch.at - row * length)
    counts = [0 if batch is None else len(batch.at) for batch in batches]
    return Joined(ids.flatten(0, 1), tuple(lengths), torch.cat(places), counts)
