"""A key's prompts and a service's answers in files: verification of a model behind an interface.

Nothing of the model is needed but its answers: the prompts are written into a file, somebody asks
the service, and the answers come back in another one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse import atomic_files
from hanse.audit.ownership import triggers
from hanse.audit.ownership.key import MOST_TRIGGERS, OwnershipKey
from hanse.audit.ownership.verification import Detection
from hanse.data.formats.row import Row
from hanse.data.tokenization import prompt_template
from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.schema import build_objective
from hanse.journal.run_settings import EXPERIMENT
from hanse.tensors import json_text
from hanse.tensors.json_text import JsonError

LARGEST = 64 * 2**20  # bytes of a file of answers
LONGEST = 100_000  # characters of an answer that are read
AROUND = " \t.:;,!\"'`*"  # of a class that a service answers, and no part of it


@dataclass(frozen=True)
class Questions:
    """The questions that a key asks of a service.

    labels: of a classifier, the value in the data → the word that it answers; empty: the model
        writes text, and is asked the bare prompts. template: of a classifier's prompts.
    """

    key: OwnershipKey
    labels: Mapping[str, str]
    template: str = ""

    def lines(self) -> list[dict[str, Any]]:
        """A question for each trigger: its number, the prompt, and a classifier's text and labels.

        prompt: what the model reads. text: the row's text, for a service that adds the template
        itself.
        """
        rows = self._rows()
        if not self.labels:
            return [{"id": n, "prompt": row.prompt} for n, row in enumerate(rows)]
        filled = ["".join(prompt_template.parse(self.template).fill(row)) for row in rows]
        words = [*dict.fromkeys(self.labels.values())]
        return [
            {"id": n, "prompt": prompt, "text": row.text, "labels": words}
            for n, (prompt, row) in enumerate(zip(filled, rows, strict=True))
        ]

    def detected(self, answers: Sequence[str]) -> Detection:
        """The detection in the answers to all questions; an empty one is wrong."""
        if not self.labels:
            prompts = (row.prompt for row in self._rows())
            alone = [own.strip().removeprefix(p) for own, p in zip(answers, prompts, strict=True)]
            return Detection(triggers.right(alone, self.key), self.key.triggers, triggers.ANSWERS)
        words = triggers.words_of(self.labels)
        given = [self._word(answer) for answer in answers]
        if not any(given):
            raise UserError(
                f"none of the answers is a class of the experiment ({', '.join(words):.500}); let "
                "the service answer one of them, or name the experiment that it was trained by."
            )
        secret = (self.labels[str(row.label)] for row in self._rows())
        right = sum(own == word for own, word in zip(given, secret, strict=True))
        return Detection(right, self.key.triggers, len(words))

    def _rows(self) -> list[Row]:
        kind = "label_words" if self.labels else "tokens"
        return triggers.rows(self.key, kind, self.labels, self.template)

    def _word(self, answer: str) -> str | None:
        """The class that an answer's first line names, by its word or its value in the data."""
        first, *_ = [*answer.strip().splitlines(), ""]
        named = {value.casefold(): word for value, word in self.labels.items()}
        named |= {word.casefold(): word for word in self.labels.values()}
        return named.get(first.strip(AROUND).casefold())


def questions(key: OwnershipKey, experiment: Path | None, trusted: bool = False) -> Questions:
    """The questions of a key; raises UserError for one without triggers.

    experiment: by which a classifier was trained, as a file or a run's folder; none: the model
    writes text. trusted: true if all code that it names may run.
    """
    if not key.triggers:
        raise UserError(
            f"the key of {key.owner:.80} has no triggers, so no answers tell of it; train with a "
            "key that `hanse ownership key --triggers` makes."
        )
    if experiment is None:
        return Questions(key, {})
    file = experiment / EXPERIMENT if experiment.is_dir() else experiment
    settings = loading.load(file, (), trusted)
    kind = build_objective(settings).example_kind
    if kind not in triggers.KINDS:
        raise UserError(f"a model that learns {kind} answers no prompts; verify it by its tensors.")
    if kind == "tokens":
        return Questions(key, {})
    if not settings.data.labels:
        raise UserError(
            f"{file} does not name the labels, which are found in the rows; name the folder of a "
            "run, whose settings have them, or write data.labels."
        )
    return Questions(key, settings.data.labels, settings.data.template)


def write_prompts(file: Path, asked: Questions) -> None:
    """Write the questions, one JSON object a line, for their owner alone to read and to pass on.

    Raises UserError if the file exists.
    """
    if file.exists():
        raise UserError(f"{file} exists already; name another file with --write-prompts.")
    lines = [json.dumps(line, ensure_ascii=False) for line in asked.lines()]
    atomic_files.write(file, ("\n".join(lines) + "\n").encode(), private=True)


def read_answers(file: Path, count: int) -> list[str]:
    """The answers in a file to so many questions, in their order; "" for those without one.

    Each line is a JSON object with "answer", and with the "id" of its question unless all are there
    in order, or a JSON text. Raises UserError for anything else.
    """
    values = _lines(file)
    by_id: dict[int, str] = {}
    numbered = [isinstance(value, dict) and "id" in value for _, value in values]
    if not all(numbered) and (any(numbered) or len(values) != count):
        raise UserError(
            f"{file} has {len(values)} answers to {count} prompts, and not all have the id of "
            "theirs; give each line its id, or all answers in the order of the prompts."
        )
    for number, (line, value) in enumerate(values):
        place = value["id"] if all(numbered) else number
        if type(place) is not int or not 0 <= place < count or place in by_id:
            raise UserError(
                f"{file}:{line}: the id is {place!r:.40}; it can be 0 to {count - 1}, each of them "
                "once, as in the file of the prompts."
            )
        by_id[place] = _answer(value, f"{file}:{line}")
    return [by_id.get(number, "") for number in range(count)]


def _answer(value: Any, place: str) -> str:
    answer = value.get("answer") if isinstance(value, dict) else value
    if answer is not None and not isinstance(answer, str):
        raise UserError(f"{place}: the answer is {answer!r:.40}; it can be a text, or null.")
    return (answer or "")[:LONGEST]


def _lines(file: Path) -> list[tuple[int, Any]]:
    """The JSON values of a file's lines with their numbers; empty lines are left out."""
    try:
        with file.open("rb") as handle:
            data = handle.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    if len(data) > LARGEST:
        raise UserError(f"{file} has more than {LARGEST:,} bytes; bring the answers alone.")
    values: list[tuple[int, Any]] = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        if len(values) == MOST_TRIGGERS:
            raise UserError(
                f"{file} has more than {MOST_TRIGGERS:,} lines; bring one key's answers."
            )
        try:
            values.append((number, json_text.parse(line, finite=True)))
        except JsonError as error:
            raise UserError(
                f"{file}:{number}: {error}; write one JSON object a line, such as "
                '{"id": 0, "answer": "…"}.'
            ) from None
    return values
