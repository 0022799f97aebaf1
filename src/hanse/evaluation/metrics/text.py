"""How alike a model's answer and the one in the data are: values from 0 to 1."""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any, Literal

from hanse.errors import UserError

Metric = Literal["exact_match", "rouge_l", "chrf"]
Judge = Callable[[str, str], float]  # the answer in the data, what the model said → 0 to 1

_NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


def exact_match(answer: str, said: str) -> float:
    """1 if the two are equal up to white space."""
    return float(answer.split() == said.split())


def number_match(answer: str, said: str) -> float:
    """1 if the last numbers of the two are equal, however they are written."""
    wanted = last_number(answer)
    return float(wanted is not None and wanted == last_number(said))


def last_number(text: str) -> Decimal | None:
    """The last number in a text: "… so 1,280.50 are left" gives 1280.5.

    Commas part thousands and a point the fraction, as in English; units and signs of currency are
    passed over.
    """
    found = _NUMBER.findall(text.replace("\N{MINUS SIGN}", "-"))
    return Decimal(found[-1].replace(",", "")) if found else None


def rouge_l(answer: str, said: str) -> float:
    """ROUGE-L (Lin 2004): F1 of the longest common subsequence of words, in lower case.

    Words are runs of letters and digits of any script; rouge-score's own tokenizer drops all that
    is not ASCII.
    """
    return float(_rouge().score(answer, said)["rougeL"].fmeasure)


def chrf(answer: str, said: str) -> float:
    """Sentence-level chrF (Popović 2015) as sacrebleu computes it, divided by 100."""
    return float(_chrf().sentence_score(said, [answer]).score) / 100


JUDGES: dict[Metric, Judge] = {"exact_match": exact_match, "rouge_l": rouge_l, "chrf": chrf}


class _Words:
    """What rouge-score asks for words."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())


@cache
def _rouge() -> Any:
    try:
        from rouge_score import rouge_scorer
    except ImportError:
        raise _missing("rouge_l", "rouge-score") from None
    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Words())


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
