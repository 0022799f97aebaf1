"""The record of an emulator, emulator.json in its folder: what it was made of, and by what."""

import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator
from pydantic import ValidationError as PydanticError

from hanse.errors import UserError
from hanse.learners.models import model_files
from hanse.tensors import json_text

FILE = "emulator.json"
LARGEST = 1_000_000  # bytes of the file
MOST_LAYERS = 10_000
Layers = Annotated[PositiveInt, Field(le=MOST_LAYERS)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Entry(BaseModel):
    """A part of the record, which has no other keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(_Entry):
    """The model that an emulator was made of. sha256: its hash, as `model_hash` computes it."""

    sha256: Hash
    model_type: Annotated[str, Field(max_length=100)]
    layers: Layers
    hidden_size: PositiveInt
    parameters: PositiveInt


class DistillationRecord(_Entry):
    """A distillation: its settings, the rows that it read, and its losses.

    first, last: the losses of the first and the last steps, by name. rows_sha256: a hash of the
    rows, which older records have; it is never written, since silos could test guessed rows by it.
    """

    settings: dict[str, Any]
    rows: PositiveInt
    first: dict[str, float]
    last: dict[str, float]
    rows_sha256: Annotated[Hash | None, Field(exclude=True)] = None


class EmulatorRecord(_Entry):
    """The content of emulator.json.

    bottom, top: the numbers of layers that are trained, and are those of the source.
    compressor: that of the middle, {name: settings}.
    layers: for each layer of the emulator, the source's layer that it was made of, from 0.
    distillation: null if the middle was not trained.
    middle_error: ‖W - Ŵ‖/‖W‖ of the middle's matrices; null in older records.
    """

    source: Source
    bottom: Layers
    top: Layers
    compressor: dict[str, dict[str, Any]]
    layers: Annotated[tuple[NonNegativeInt, ...], Field(max_length=MOST_LAYERS)]
    distillation: DistillationRecord | None = None
    middle_error: Annotated[float | None, Field(ge=0)] = None

    @model_validator(mode="after")
    def _layers_fit(self) -> Self:
        total = self.source.layers
        if not self.bottom + self.top < len(self.layers) <= total:
            raise ValueError("it has other numbers of layers than bottom, middle and top")
        ends = (*range(self.bottom), *range(total - self.top, total))
        middle = self.layers[self.bottom : len(self.layers) - self.top]
        whole = (*ends[: self.bottom], *middle, *ends[self.bottom :])
        if self.layers != whole or list(whole) != sorted(set(whole)):
            raise ValueError("its layers are not bottom, middle and top of the source in order")
        return self

    @property
    def adapter_layers(self) -> list[int]:
        """The emulator's layers that may be trained: bottom and top, from 0."""
        count = len(self.layers)
        return [*range(self.bottom), *range(count - self.top, count)]

    @property
    def whole_adapter_layers(self) -> list[int]:
        """The same layers by their numbers in the source."""
        return [self.layers[number] for number in self.adapter_layers]


def write(folder: Path, record: EmulatorRecord) -> None:
    """Write the record into a folder."""
    text = json.dumps(record.model_dump(mode="json"), indent=2)
    (folder / FILE).write_text(f"{text}\n", encoding="utf-8")


def read(folder: Path) -> EmulatorRecord | None:
    """The record in a folder; None without one. Raises UserError for one that cannot be used."""
    if not (folder / FILE).is_file():
        return None
    try:
        return EmulatorRecord.model_validate(json_text.read_object(folder / FILE, largest=LARGEST))
    except (ValueError, OSError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, PydanticError) else error
        raise UserError(
            f"{folder / FILE} is no record of an emulator ({first}); bring back the file that "
            "`hanse emulator` has written."
        ) from None


def of_model(name: str) -> EmulatorRecord | None:
    """The record of the model of this name; None if it is no emulator, or not on this machine."""
    if model_files.gguf(name):
        return None
    place = Path(model_files.locate(name))
    return read(place) if place.is_dir() else None
