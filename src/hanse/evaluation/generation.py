"""The task generation: the model's answers to prompts, compared with those in the data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from hanse.data.example import Example
from hanse.errors import UserError
from hanse.evaluation.metrics.confidence import standard_error
from hanse.evaluation.metrics.text import METRICS, AnswerMetric, Metric, last_number, number_match
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores
from hanse.federation.interfaces.task import Task
from hanse.journal.records import GeneratedSample
from hanse.observability.progress import track
from hanse.observability.steps import Activity, Work


@dataclass(frozen=True)
class Generation(Task):
    """Exact match, ROUGE-L and chrF of the model's answers and those in the data.

    The model always takes the most likely token. A metric is the mean of one value from 0 to 1 for
    each example. chrF is that of sentences, since that of a corpus has no paired comparison. An
    item is the first metric's value. Rows need a prompt and an answer: messages, prompt and
    completion, or text and label.
    """

    reports = tuple(f"{name}{end}" for name in METRICS for end in ("", "_se"))
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)] = ("exact_match", "rouge_l", "chrf")
    # What exact_match compares: whole answers, or the last numbers in them ("… #### 288").
    answer: Literal["whole", "number"] = "whole"
    max_new_tokens: PositiveInt = 64
    limit: PositiveInt = 64  # the most examples of one evaluation, always a split's first
    samples: NonNegativeInt = 8  # answers that are kept for reading, always a split's first
    batch_size: PositiveInt = 16
    costly: bool = True  # false: also on validation rows, and at each client on its own

    @property
    def test_only(self) -> bool:
        return self.costly

    def require(self) -> None:
        for name in self.metrics:
            METRICS[name]("", "")

    def evaluate(self, learner: Learner, split: str) -> Scores:
        examples: Sequence[Example] = learner.examples(split)[: self.limit]
        self._refuse_unanswered(examples, split)
        self.require()  # before minutes of generation
        functions = {name: self._metric(name) for name in self.metrics}
        answers = self._answers(learner, examples, split)
        metrics: dict[str, float] = {}
        items: dict[str, list[float]] = {}
        for name, metric in functions.items():
            pairs = zip(examples, answers, strict=True)
            items[name] = [metric(example.answer, answer) for example, answer in pairs]
            metrics[name] = sum(items[name]) / len(items[name])
            if len(examples) > 1:
                metrics[f"{name}_se"] = standard_error(items[name])
        shown = zip(examples[: self.samples], answers, strict=False)
        samples = [GeneratedSample(learner.text(e.ids[: e.prompt]), e.answer, s) for e, s in shown]
        return Scores(metrics, items[self.metrics[0]], samples)

    def _answers(self, learner: Learner, examples: Sequence[Example], split: str) -> list[str]:
        """The model's answer to each example, generated in batches of similar length."""
        order = sorted(range(len(examples)), key=lambda index: -examples[index].prompt)
        starts = range(0, len(order), self.batch_size)
        batches = [order[start : start + self.batch_size] for start in starts]
        answers = [""] * len(examples)
        work = Work(Activity.GENERATING, split, total=len(examples))
        for places in track(batches, work, self.batch_size):
            batch = [examples[place] for place in places]
            texts = learner.generate(batch, self.max_new_tokens)
            for place, text in zip(places, texts, strict=True):
                answers[place] = text.strip()
        return answers

    def _metric(self, metric: Metric) -> AnswerMetric:
        number = metric == "exact_match" and self.answer == "number"
        return number_match if number else METRICS[metric]

    def _refuse_unanswered(self, examples: Sequence[Example], split: str) -> None:
        for number, example in enumerate(examples, 1):
            if not (example.prompt and example.answer):
                raise UserError(
                    f"row {number} of the {split} rows has no answer to compare with, or nothing "
                    "that asks for it; the task generation needs messages, prompt and completion, "
                    "or text and label: use the task perplexity for plain text."
                )
            if self.answer == "number" and last_number(example.answer) is None:
                raise UserError(
                    f"row {number} of the {split} rows has no number in its answer "
                    f"{example.answer!r:.60}; use generation: {{answer: whole}}."
                )
