"""The files by which a model behind an interface is verified: prompts out, answers in."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hanse.cli.options import console
from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.serving import interface_answers

if TYPE_CHECKING:
    from hanse.audit.ownership.key import OwnershipKey
    from hanse.audit.ownership.verification import Detection


@dataclass(frozen=True)
class ServiceFiles:
    """The files that `hanse ownership verify` was given for a service.

    prompts: to be written. answers: to be read. experiment: by which a classifier was trained.
    """

    prompts: Path | None
    answers: Path | None
    experiment: Path | None

    def refuse_mixed(self, adapter: Path | None, key: Path | None, asks_model: bool) -> None:
        """Raise UserError for options that lack or exclude one another.

        asks_model: whether the model itself is to be asked.
        """
        if self.prompts is None and self.answers is None:
            if self.experiment is not None:
                raise UserError(
                    "--experiment belongs to --write-prompts and --answers, and a run's folder has "
                    "its own; leave it out."
                )
            return
        option = "--answers" if self.prompts is None else "--write-prompts"
        if key is None:
            raise UserError(f"{option} is about the secret prompts of a key; name it with --key.")
        if adapter is not None or asks_model or (self.prompts and self.answers):
            raise UserError(
                f"{option} verifies a service by its answers alone; leave out the folder, "
                "--prompts, and the other step."
            )

    def write(self, key: "OwnershipKey", trust: bool) -> None:
        """Write a key's prompts, and say what comes next."""
        assert self.prompts is not None
        asked = interface_answers.questions(key, self.experiment, trust)
        interface_answers.write_prompts(self.prompts, asked)
        of = f"a classifier of {len(asked.labels)} labels" if asked.labels else "a model of text"
        console.print(f"written  {self.prompts}, {key.triggers} prompts for {of}", soft_wrap=True)
        console.print(
            "next     ask the service each prompt as it is, write a line for each answer, "
            '{"id": 0, "answer": "…"}, and verify again with --answers in place of --write-prompts',
            soft_wrap=True,
            markup=False,
        )

    def detected(self, key: "OwnershipKey", trust: bool) -> "Detection":
        """The detection in the answers; prints how many prompts were answered."""
        assert self.answers is not None
        asked = interface_answers.questions(key, self.experiment, trust)
        answers = interface_answers.read_answers(self.answers, key.triggers)
        count = sum(bool(answer.strip()) for answer in answers)
        rest = "; the others count as wrong" if count < key.triggers else ""
        console.print(f"answers  {count} of {key.triggers} prompts were answered{rest}")
        return asked.detected(answers)
