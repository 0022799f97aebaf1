"""The settings of a run as its experiment.yaml has them, for whoever reads run folders.

A file that was damaged or written by hand may lack any of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.errors import UserError
from hanse.journal import yaml_text

EXPERIMENT = "experiment.yaml"
SPLIT = ("test", "validation", "split_seed")  # the settings by which the test rows are drawn
# The settings that decide which tokens of a row are scored.
TOKENS = (("data", "mask_history"), ("model", "max_length"), ("model", "long_texts"))


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run: all of them as a mapping and as the text of the file."""

    values: Mapping[str, Any]
    text: str

    @property
    def name(self) -> str | None:
        """The run's name."""
        name = self.values.get("name")
        return str(name) if name else None

    @property
    def base_model(self) -> str | None:
        """The base model's folder or id."""
        name = self._section("model").get("model_name_or_path")
        return str(name) if name else None

    @property
    def algorithm(self) -> str | None:
        """The algorithm's name."""
        return _names(self.values.get("algorithm")) or None

    @property
    def compression(self) -> str:
        """The codecs in words, such as "updates by bf16"; empty without any."""
        section = self._section("compression")
        upload, download = _names(section.get("upload")), _names(section.get("download"))
        clients = self._section("clients").values()
        others = sum(isinstance(own, Mapping) and "compression" in own for own in clients)
        phrases = [
            *([f"updates by {upload}"] if upload else []),
            *([f"instructions by {download}"] if download else []),
            *(["with error feedback"] if section.get("error_feedback") else []),
            *([f"{others} of the clients by their own settings"] if others else []),
        ]
        return ", ".join(phrases)

    @property
    def mechanism(self) -> str:
        """The name of the mechanism of privacy; empty without one."""
        return _names(self.values.get("privacy"))

    @property
    def attack(self) -> str:
        """The name of the attack of a simulation; empty if all clients were honest."""
        return _names(self.values.get("attack"))

    @property
    def rounds(self) -> int | None:
        """The number of rounds."""
        rounds = self.values.get("rounds")
        return rounds if isinstance(rounds, int) else None

    @property
    def expected_seconds(self) -> dict[str, float]:
        """The seconds of a round's training by client, of an algorithm that follows a plan."""
        parts = self._section("algorithm").values()
        plans = [own.get("expected_seconds") for own in parts if isinstance(own, Mapping)]
        return {
            str(name): float(seconds)
            for plan in plans
            if isinstance(plan, Mapping)
            for name, seconds in plan.items()
            if isinstance(seconds, int | float) and 0 < seconds <= 1e9
        }

    @property
    def labels(self) -> Mapping[str, Any]:
        """The word of each label."""
        labels = self._section("data").get("labels")
        return labels if isinstance(labels, Mapping) else {}

    @property
    def split(self) -> tuple[Any, ...]:
        """The settings by which the test rows are drawn from the data."""
        data = self._section("data")
        return tuple(data.get(key) for key in SPLIT)

    @property
    def scored_tokens(self) -> dict[str, Any]:
        """The settings that decide which tokens of a row are scored; older runs lack some."""
        return {
            f"{section}.{key}": self._section(section)[key]
            for section, key in TOKENS
            if key in self._section(section)
        }

    @property
    def output_dir(self) -> str | None:
        """The folder that was asked for; None if hanse chose one."""
        folder = self.values.get("output_dir")
        return str(folder) if folder else None

    def _section(self, name: str) -> Mapping[str, Any]:
        section = self.values.get(name)
        return section if isinstance(section, Mapping) else {}


def _names(specs: Any) -> str:
    """The names of the parts in a spec or in a list of specs, joined by commas."""
    if isinstance(specs, list):
        return ", ".join(filter(None, map(_names, specs)))
    if isinstance(specs, Mapping):
        return ", ".join(map(str, specs))
    return "" if specs is None else str(specs)


def refuse_no_run(folder: Path) -> None:
    """Raise UserError for a folder that is not that of a run."""
    if not (folder / EXPERIMENT).is_file():
        raise UserError(f"{folder} is no run folder: it has no {EXPERIMENT}.")


def read_settings(folder: Path) -> RunSettings:
    """The settings of a run folder; raises UserError if there are none."""
    return RunSettings(*yaml_text.read(folder / EXPERIMENT))
