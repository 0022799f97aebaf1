"""Similarity of a model's answer and the answer in the data, from 0 to 1."""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any, Literal

from hanse.errors import UserError

Metric = Literal["exact_match", "rouge_l", "chrf"]
AnswerMetric = Callable[[str, str], float]  # the answer in the data, that of the model → 0 to 1

_NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


def exact_match(answer: str, generated: str) -> float:
    """1 if the two are equal up to white space."""
    return float(answer.split() == generated.split())


def number_match(answer: str, generated: str) -> float:
    """1 if the last numbers of the two are equal, in whatever notation."""
    number = last_number(answer)
    return float(number is not None and number == last_number(generated))


def last_number(text: str) -> Decimal | None:
    """The last number in a text: "… so 1,280.50 are left" gives 1280.5.

    Commas separate thousands and a point the fraction, as in English; units and signs of currency
    are ignored.
    """
    numbers = _NUMBER.findall(text.replace("\N{MINUS SIGN}", "-"))
    return Decimal(numbers[-1].replace(",", "")) if numbers else None


def rouge_l(answer: str, generated: str) -> float:
    """ROUGE-L (Lin 2004): F1 of the longest common subsequence of words, in lower case.

    Words are runs of letters and digits of any script; rouge-score's own tokenizer drops all
    characters that are not ASCII.
    """
    return float(_rouge().score(answer, generated)["rougeL"].fmeasure)


def chrf(answer: str, generated: str) -> float:
    """Sentence-level chrF (Popović 2015) as sacrebleu computes it, divided by 100."""
    return float(_chrf().sentence_score(generated, [answer]).score) / 100


METRICS: dict[Metric, AnswerMetric] = {"exact_match": exact_match, "rouge_l": rouge_l, "chrf": chrf}


class _WordTokenizer:
    """A tokenizer for rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())


@cache
def _rouge() -> Any:
    try:
        from rouge_score import rouge_scorer
    except ImportError:
        raise _missing("rouge_l", "rouge-score") from None
    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=_WordTokenizer())


@cache
def _chrf() -> Any:
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise _missing("chrf", "sacrebleu") from None
    return CHRF()


def _missing(metric: str, package: str) -> UserError:
    return UserError(
        f"the metric {metric} needs {package}, which is not installed; run "
        "pip install 'hanse[eval]', or name other metrics."
    )
