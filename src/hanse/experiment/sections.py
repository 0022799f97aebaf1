"""Sections of an experiment that concern no model: rows, compression, evaluation, deployment."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from hanse import registry
from hanse.data.formats.system_turns import System
from hanse.data.sources.readers import encoding
from hanse.errors import UserError
from hanse.experiment.validation import HASH, VISIBLE

Spec = str | dict[str, Any]  # a part: "name", or {name: {setting: value}}


def _one_rule(value: Any) -> Any:
    """The spec of the rule that combines updates; raises ValueError if there are several."""
    if isinstance(value, list | dict) and len(value) > 1:
        names = [name for spec in value for name in (spec if isinstance(spec, dict) else [spec])]
        raise ValueError(
            f"aggregator names {' and '.join(map(str, names)):.200}, and one rule combines the "
            "updates; choose one of them. (Secure sums hide the single updates that a robust rule "
            "compares, so no rule does both.)"
        )
    return value


Rule = Annotated[Spec, BeforeValidator(_one_rule)]

Share = Annotated[float, Field(ge=0, lt=1)]
Word = Annotated[str, Field(pattern=VISIBLE)]  # a label as the model writes it
Amount = Annotated[int, Field(ge=0, strict=True)] | Share  # a count, or a share below 1
Held = Amount | Annotated[str, Field(min_length=1, strict=True)]  # or a file


def _known_encoding(value: str) -> str:
    """A name of an encoding; raises ValueError for another one."""
    try:
        encoding.check(value)
    except UserError as error:
        raise ValueError(str(error)) from None
    return value


Encoding = Annotated[str, AfterValidator(_known_encoding)]


class SettingsModel(BaseModel):
    """A section of settings, which refuses unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values; raises KeyError for a setting that does not exist."""
        if unknown := (update or {}).keys() - type(self).model_fields.keys():
            raise KeyError(f"{type(self).__name__} has no setting {', '.join(sorted(unknown))}")
        return super().model_copy(update=update, deep=deep)


class PublicData(SettingsModel):
    """A public data set, of which the server and the clients have the same rows.

    path, columns, filter, template, skip_invalid, encoding, system: as in `data`; without a
        template, that of `data`.
    sha256: the hash of the rows, as a run folder's machine.json has it; other rows are refused.
    """

    path: str
    columns: dict[str, str] = {}
    filter: dict[str, str] = {}
    skip_invalid: bool = False
    encoding: Encoding = ""
    system: System = "keep"
    template: str | None = None
    sha256: Annotated[str, Field(pattern=HASH)] | None = None

    @model_validator(mode="after")
    def _template_has_text(self) -> Self:
        if self.template is not None:
            refuse_without_text(self.template, "data.public.template")
        return self


class Data(SettingsModel):
    """The rows, the prompt for a labelled row, and the division among the clients.

    path: a file, a folder of files, a hub's owner/name, or a short name such as movie-reviews.
    columns: our names → the file's names, if the format is not recognized.
    filter: keep only rows whose columns have these values.
    skip_invalid: go on without rows that cannot be read, and say how many; false refuses them.
    encoding: of the files, such as gbk or cp1251; empty: UTF-8, or a guess that a remark names.
    system: what becomes of a conversation's system turns, which some chat templates refuse: keep;
        merge, to put their text before the first question; or drop, to leave them out.
    mask_history: learn the last answer of a conversation only, not those of earlier turns.
    template: the prompt for a labelled row; {text} stands for its text, and the name of a column in
        braces for its value, such as {premise} and {hypothesis}.
    labels: the label's value in the data → the word that the model answers; empty: the values.
    test, validation: rows held out before the division: a count, a share, or a file or folder that
        has them. In a folder with a file for each split (train.jsonl, test.jsonl), `path` means the
        training files, and `test` and `validation` mean the files of that name.
    split_seed: draws the rows that are held out. Runs with different seeds share their test rows.
    client_test: the share of its rows that each client holds out for itself.
    pooled: give all rows to one client, "pooled", after the division.
    public: a public data set beside these rows, for algorithms that need one; nobody's training
        rows, and divided among nobody.
    """

    path: str = "movie-reviews"
    columns: dict[str, str] = {}
    filter: dict[str, str] = {}
    skip_invalid: bool = False
    encoding: Encoding = ""
    system: System = "keep"
    mask_history: bool = False
    template: str = "{text}\nLabel:"
    labels: dict[str, Word] = {}
    test: Held = 0.1
    validation: Held = 0.1
    split_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    client_test: Share = 0.1
    partition: Spec = "iid"
    pooled: bool = False
    public: PublicData | None = None

    @field_validator("public", mode="before")
    @classmethod
    def _read_path_alone(cls, value: Any) -> Any:
        if value == "none":
            return None
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _template_has_text(self) -> "Data":
        refuse_without_text(self.template, "data.template")
        return self


def refuse_without_text(template: str, setting: str) -> None:
    """Raise ValueError for a template that leaves no place for a row's text."""
    if not re.search(r"{[^{}]+}", template):
        raise ValueError(
            f"{setting} {template!r} has no {{text}} in it; write {{text}} where the row's text "
            "belongs, or columns of the data in braces."
        )


def listed(specs: Any) -> Any:
    """The list of parts that one part alone or `none` stands for; anything else unchanged."""
    if specs is None or specs == "none":
        return []
    return [specs] if isinstance(specs, str | dict) else specs


def written_out(compression: Any) -> Any:
    """The section `compression` that a list of codecs alone, or one codec's name, stands for."""
    alone = compression is None or isinstance(compression, str | list)
    return {"upload": compression} if alone else compression


def _is_codec(key: Any) -> bool:
    """True for the name of a codec, of the package or of a file."""
    return ":" in str(key) or key in registry.names("federation/compression")


class CompressionSettings(SettingsModel):
    """The codecs that tensors pass on their way; a list of codecs alone stands for `upload`.

    upload: the codecs of each client's update, in the order of encoding.
    download: the codecs of what the server sends to each client.
    error_feedback: the sender adds what its last encoded tensors lacked to the next ones: a client
        on the upload, the server on the download. It concerns a whole list, not one codec in it.
    collect: the server keeps each client's decoded update of each round in the run folder, for
        `hanse fit-codec`. Silos must allow it (policy.collect). Refused beside upload codecs that
        send fewer numbers, and beside noise at the server.
    """

    upload: list[Spec] = Field(default=[])
    download: list[Spec] = Field(default=[])
    error_feedback: bool = False
    collect: bool = False

    @model_validator(mode="before")
    @classmethod
    def _read_codecs_as_upload(cls, value: Any) -> Any:
        codecs = [key for key in value if _is_codec(key)] if isinstance(value, dict) else []
        if codecs:
            raise ValueError(
                f"compression has the codec {codecs[0]} as a setting; write codecs as a list, such "
                f"as compression: [{{{codecs[0]}: {{setting: value}}}}]."
            )
        return written_out(value)

    @field_validator("upload", "download", mode="before")
    @classmethod
    def _read_one_codec_as_list(cls, value: Any) -> Any:
        return listed(value)

    @model_validator(mode="after")
    def _feeds_an_error_back(self) -> "CompressionSettings":
        if self.error_feedback and not (self.upload or self.download):
            raise ValueError(
                "compression.error_feedback is true, but compression names no codec that could "
                "make an error; name one, or set error_feedback: false."
            )
        return self


class Evaluation(SettingsModel):
    """The tasks that score a run, and the rounds in which they do.

    tasks: names of tasks; none: the one that suits the objective.
    validate_every: score the validation split every so many rounds; 0: after the last round only.
    test: score the test split before the first round and after the last; final: after it only.
    clients: let each client score the final model on the rows that it holds out.
    """

    tasks: Annotated[list[Spec], Field(min_length=1)] | None = None
    validate_every: Annotated[int, Field(ge=0)] = 1
    test: bool | Literal["final"] = True
    clients: bool = True


class Deployment(SettingsModel):
    """The end of a round with clients on other machines, or behind simulated links.

    A simulation without `links` waits for all clients. One with links keeps to deadline, quorum and
    over_selection in simulated seconds, and stops where a deployment would pause: the same clients
    would be late again.

    deadline: seconds that clients have for one reply; none: no limit.
    quorum: the fewest replies that are combined, as a number or as a share of the clients that take
        part. With fewer the run pauses until enough clients are there.
    over_selection: ask this many times the clients that fraction_train selects; the round ends when
        as many as fraction_train selects have replied (Bonawitz et al. 2019, section 4.2).
    max_norm_ratio: refuse an update whose norm is more than this many times the median of the
        others' norms; none: refuse no update. Norms grow with the steps, so the number must exceed
        the ratio of the silos' sizes.
    deliver_model: whether the server sends its model folder to each silo that lacks the model. A
        silo takes it if its policy says `delivered_models: allow`. No effect in a simulation.
    """

    deadline: Annotated[float, Field(gt=0)] | None = None
    quorum: Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, le=1)] = 1.0
    over_selection: Annotated[float, Field(ge=1)] = 1.0
    max_norm_ratio: Annotated[float, Field(gt=1)] | None = 50.0
    deliver_model: bool = False

    def needed(self, clients: int) -> int:
        """The fewest replies that are combined, with this number of clients."""
        share = isinstance(self.quorum, float)
        return min(clients, math.ceil(self.quorum * clients) if share else int(self.quorum))
