"""The experiment that another tool's config becomes, while it is put together."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanse.experiment import foreign_values
from hanse.journal.yaml_text import Values

EMPTY = "no value is given"
PATHS = ("data.path", "data.validation", "model.model_name_or_path", "adapter.from")
TEXTS = ("data.path", "model.model_name_or_path", "adapter.from", "name", "output_dir")
OFF = (None, False, "none")  # values of a switch that is off
SWITCHED_OFF = "it is switched off"
ONE_PATH = (
    "hanse reads one path; put the files into one folder and name that in data.path, or give each "
    "silo its own file with its own columns (clients.NAME.data)"
)


@dataclass(frozen=True)
class Choice:
    """A value of a setting, and the comment behind it.

    key: the config's key that it comes from; empty for a default.
    """

    value: Any
    comment: str
    key: str = ""


@dataclass
class Draft:
    """The settings by their dotted names, and the keys that are not carried over, with reasons.

    source: the config's values, by keys with dots if they stand in sections.
    folder: the folder of the config. home: that of the experiment, from which its paths start.
    """

    source: Mapping[str, Any]
    folder: Path
    home: Path
    settings: dict[str, Choice] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def put(self, setting: str, value: Any, key: str, comment: str = "") -> None:
        """Carry a key over. Of two keys for one setting the first that is not off is taken."""
        value = value if setting in TEXTS else number(value)
        ours = foreign_values.ours(tuple(setting.split(".")), value)
        if setting in PATHS:
            ours = self.path(ours)
        if before := self.settings.get(setting):
            if before.value == ours or before.value not in OFF:
                self.left[key] = _overruled(before, ours)
                return
            self.leave(before.key, SWITCHED_OFF)
        same = key == setting.rpartition(".")[2]
        origin = ("" if same else key) if ours == value else f"{key}: {shown(value)}"
        self.settings[setting] = Choice(ours, comment or origin, key)

    def default(self, setting: str, value: Any, comment: str) -> None:
        """Set a setting that no key has set, neither as a whole nor in parts."""
        if not any(f"{name}.".startswith(f"{setting}.") for name in self.settings):
            self.settings[setting] = Choice(value, comment)

    def leave(self, keys: str | Sequence[str], reason: str) -> None:
        """Note keys that are not carried over."""
        for key in [keys] if isinstance(keys, str) else keys:
            self.left[key] = reason

    def drop(self, prefix: str, reason: str) -> None:
        """Remove the settings of a section again."""
        for setting in [name for name in self.settings if name.startswith(prefix)]:
            if key := self.settings.pop(setting).key:
                self.leave(key, reason)

    def value(self, setting: str) -> Any:
        """The value of a setting; None if it has none."""
        return self.settings[setting].value if setting in self.settings else None

    def path(self, path: Any) -> Any:
        """A file's path from the experiment's folder; a hub's name stays as it is.

        Other tools look for a file where they are started, which is often the config's folder.
        """
        place = self._place(path)
        return path if place is None else os.path.relpath(place, self.home)

    def is_file(self, path: Any) -> bool:
        """Tell if there is a file or a folder of this path."""
        return self._place(path) is not None

    def _place(self, path: Any) -> Path | None:
        if not isinstance(path, str) or not path:
            return None
        places = (folder / path for folder in (self.folder, Path()))
        return next((place for place in places if os.path.exists(place)), None)

    def tree(self) -> Values:
        """The settings as sections."""
        result: Values = {}
        for name, choice in self.settings.items():
            section = result
            *above, last = name.split(".")
            for key in above:
                section = section.setdefault(key, {})
            section[last] = choice.value
        return result


def _overruled(before: Choice, value: Any) -> str:
    """The reason why a second key for one setting is not carried over."""
    if before.value == value:
        return f"{before.key} says the same"
    return SWITCHED_OFF if value in OFF else f"{before.key} is taken"


def number(value: Any) -> Any:
    """The number that a text such as 5e-5 is, which YAML reads as text; anything else unchanged."""
    is_number = isinstance(value, str) and re.fullmatch(r"\d+(\.\d*)?[eE][-+]?\d+", value)
    return float(value) if is_number else value


def shown(value: Any) -> str:
    """A value in a comment, at most a line."""
    text = str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:39]}…"
