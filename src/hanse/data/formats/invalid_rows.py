"""Rows of a data source that cannot be read: counted and named, or left out if the user says so."""

from collections.abc import Callable
from pathlib import PurePath

from hanse.errors import UserError

NAMED = 10  # rows whose places a message names
ENOUGH = 1000  # invalid rows without a valid one, after which nothing more is read

Refusal = Callable[[str, UserError], None]  # takes the place of a row, and its fault


def refuse(place: str, fault: UserError) -> None:
    """Raise the fault of a row, for readers who want whole files only."""
    raise fault


class InvalidRows:
    """Counts the invalid rows of one source, and keeps the reasons for the first ones.

    skip: the setting `data.skip_invalid`. stopped: the rows after the invalid ones were not read.
    """

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self.count = 0
        self.stopped = False
        self._first: UserError | None = None
        self._places: dict[str, list[str]] = {}  # by the reason

    def add(self, place: str, fault: UserError) -> None:
        """Note a row that cannot be read."""
        self._first = self._first or fault
        if self.count < NAMED:
            reason = str(fault).removeprefix(place).lstrip(": ").partition(";")[0].rstrip(".")
            self._places.setdefault(reason, []).append(place)
        self.count += 1

    def conclude(self, name: str, valid: int, remark: Callable[[str], None]) -> None:
        """Raise UserError for the invalid rows of a source, or remark on them if they are skipped.

        name: of the source. valid: the number of its other rows; without any nothing is skipped.
        """
        if self._first is None:
            return
        number = "the first" if self.stopped else f"{self.count:,} of"
        share = f"{number} {self.count + valid:,} rows of {name}"
        if not valid:
            if len(self._places) == 1:
                raise self._first
            raise UserError(f"{share} cannot be read: {self._reasons(name)}; correct them.")
        if self.skip:
            are = "is" if self.count == 1 else "are"
            reasons = self._reasons(name)
            remark(f"{share} {are} left out, since data.skip_invalid is true: {reasons}.")
        elif self.count == 1:
            sentence = str(self._first).rstrip(".")
            raise UserError(f"{sentence}; data.skip_invalid: true goes on without this row.")
        else:
            raise UserError(
                f"{share} cannot be read: {self._reasons(name)}; correct them, or go on without "
                "them with data.skip_invalid: true."
            )

    def _reasons(self, name: str) -> str:
        """Each reason with the places of its rows, for the first rows of the source `name`."""
        reasons = [
            f"{', '.join(_within(place, name) for place in places)}: {reason}"
            for reason, places in self._places.items()
        ]
        more = f"; and {self.count - NAMED:,} more" if self.count > NAMED else ""
        return "; ".join(reasons) + more


def _within(place: str, name: str) -> str:
    """A place without the folders of its source: data/a.csv:4 is a.csv:4."""
    if place.startswith(f"{name}:"):
        return PurePath(name).name + place.removeprefix(name)
    return place.removeprefix(f"{name}/")
