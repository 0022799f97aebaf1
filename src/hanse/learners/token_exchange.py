"""Tokens of a model's examples as tensors for another machine, and their comparison there."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hanse.data.example import IGNORED, Example
from hanse.data.tokenization.alignment import same_texts
from hanse.data.tokenization.alignment.token_alignment import TokenAlignment
from hanse.data.tokenization.alignment.token_texts import Vocabulary, of_tokenizer
from hanse.data.tokenization.alignment.vocabulary_map import NONE, cached_map
from hanse.errors import UserError
from hanse.federation.interfaces.token_alignment import Correspondence
from hanse.learners.backbone import Backbone
from hanse.learners.models.model_files import cache_folder
from hanse.tensors.named import Tensors, digest, from_bytes, to_bytes

FOLDER = "token_maps"  # of the cache
KEPT = 8  # pairs of tokenizations whose correspondences stay in memory
SHOWN = 40  # characters of a text in a message
_known: dict[tuple[str, str], tuple[Correspondence, Correspondence]] = {}  # by their digests


def tokenization(backbone: Backbone, examples: Sequence[Example]) -> dict[str, Tensor]:
    """A model's vocabulary and the tokens of its examples.

    texts: the bytes of the tokens' texts; ends: (tokens,) the end of each there. special: ids.
    ids, labels: of all examples behind each other, labels as in `Example`. lengths: (examples,).
    classes: (1,) the number of the model's logits.
    """
    _refuse_unlabelled(examples)
    vocabulary = of_tokenizer(backbone.tokenizer)
    texts = [text.encode(errors="surrogatepass") for text in vocabulary.texts]
    return {
        "texts": from_bytes(b"".join(texts)),
        "ends": torch.tensor([len(text) for text in texts], dtype=torch.int32).cumsum(0),
        "special": torch.tensor(sorted(vocabulary.special), dtype=torch.int32),
        "ids": torch.tensor([token for e in examples for token in e.ids], dtype=torch.int32),
        "labels": torch.tensor([t for e in examples for t in labels(e)], dtype=torch.int32),
        "lengths": torch.tensor([len(e) for e in examples], dtype=torch.int32),
        "classes": torch.tensor([classes(backbone)]),
    }


def correspondences(
    backbone: Backbone, examples: Sequence[Example], other: Tensors
) -> tuple[Correspondence, Correspondence]:
    """From a model to another one, and back; other: the other one's `tokenization`.

    Those of the last pairs of tokens stay in memory: simulated clients often have the same ones.
    Raises UserError if the other one has another number of examples, or other texts.
    """
    own = tokenization(backbone, examples)
    key = digest(own), digest(other)
    if key not in _known:
        result = _both_ways(own, other)
        if len(_known) == KEPT:
            _known.pop(next(iter(_known)))
        _known[key] = result
    return _known[key]


def _both_ways(own: Tensors, other: Tensors) -> tuple[Correspondence, Correspondence]:
    """The correspondences of two tokenizations."""
    (one, ours, our_classes), (two, theirs, their_classes) = _read(own), _read(other)
    if len(theirs) != len(ours):
        raise UserError(
            f"there are {len(ours):,} public texts here and {len(theirs):,} at the server; "
            "bring the same file, and name it by data.public."
        )
    _refuse_other_texts(one, ours, two, theirs)
    there = _correspondence(one, two, ours, theirs, their_classes)
    return there, _correspondence(two, one, theirs, ours, our_classes)


def _refuse_other_texts(
    one: Vocabulary, ours: Sequence[Example], two: Vocabulary, theirs: Sequence[Example]
) -> None:
    """Raise UserError unless both sides learn the same texts."""
    if (place := same_texts.first_difference(one, ours, two, theirs)) is None:
        return
    mine, others = (
        same_texts.learned_text(vocabulary, example)[:SHOWN]
        for vocabulary, example in ((one, ours[place]), (two, theirs[place]))
    )
    raise UserError(
        f"the text of public row {place + 1:,} begins with {mine!r} here and with {others!r} at "
        "the server; bring the same rows in the same order, with the same template."
    )


def classes(backbone: Backbone) -> int:
    """The number of a causal model's logits."""
    return int(backbone.model.get_output_embeddings().weight.shape[0])


def labels(example: Example) -> tuple[int, ...]:
    """The labels of an example's tokens; no model predicts the first one."""
    return (IGNORED, *example.labels[1:])


def _correspondence(
    one: Vocabulary,
    two: Vocabulary,
    source: Sequence[Example],
    target: Sequence[Example],
    classes: int,
) -> Correspondence:
    """From the source's rows and classes to the target's.

    classes: the number of the target's logits. A tokenizer may have tokens beyond them, which no
    class corresponds to.
    """
    alignment = TokenAlignment(one, two, cached_map(one, two, cache_folder() / FOLDER))
    mapping = torch.from_numpy(alignment.mapping)
    right = [label for e in target for label in e.labels if label != IGNORED]
    return Correspondence(
        torch.from_numpy(alignment.label_rows(source, target)),
        mapping.masked_fill(mapping >= classes, NONE),
        torch.tensor(right),
        classes,
    )


def _read(tokens: Tensors) -> tuple[Vocabulary, list[Example], int]:
    """The vocabulary, examples and number of classes in a `tokenization`.

    Raises UserError for other tensors.
    """
    try:
        content, ends = to_bytes(tokens["texts"]), tokens["ends"].tolist()
        pairs = zip([0, *ends[:-1]], ends, strict=True)
        texts = [content[start:end].decode(errors="surrogatepass") for start, end in pairs]
        lengths = tokens["lengths"].tolist()
        ids, right = (torch.split(tokens[name], lengths) for name in ("ids", "labels"))
        rows = [
            Example(tuple(one.tolist()), tuple(two.tolist()))
            for one, two in zip(ids, right, strict=True)
        ]
        known = {*range(len(texts))}
        if not all(known.issuperset(e.ids) and {*e.labels} <= {*e.ids, IGNORED} for e in rows):
            raise ValueError("there are tokens that are not in the vocabulary")
        vocabulary = Vocabulary(tuple(texts), frozenset(tokens["special"].tolist()))
        return vocabulary, rows, int(tokens["classes"])
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise UserError(
            f"the server's tokens of the public texts cannot be read: {error}; update the server "
            "or this silo to the same version of hanse."
        ) from None


def _refuse_unlabelled(examples: Sequence[Example]) -> None:
    """Raise UserError for examples whose answers are no labelled tokens."""
    if len(examples) and all(label == IGNORED for label in examples[0].labels):
        raise UserError(
            "tokens of public texts are aligned by their labels, and these rows have none; choose "
            "objective: sft, or the algorithm feddistill, which compares label words."
        )
