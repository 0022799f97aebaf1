"""Labels that differ only in case or blanks: probably one label, learned as several."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from hanse.data.formats.row import Row

SHOWN = 3  # most groups of labels that the remark names


def remarks(rows: Sequence[Row], owners: Mapping[str, str] | None = None) -> list[str]:
    """A remark on labels or tags whose spellings differ, if there are any.

    owners: the silo of each row, by the row's place, if silos have files of their own.
    """
    counts: Counter[str] = Counter()
    silos: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        labels = row.tags if row.kind == "tagged" else [row.label] if row.kind == "labelled" else []
        for label in filter(None, labels):
            counts[label] += 1
            if owners and row.place in owners:
                silos[label][owners[row.place]] = None
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for label in counts:
        spellings[_folded(label)].append(label)
    groups = [labels for labels in spellings.values() if len(labels) > 1]
    if not groups:
        return []
    shown = [
        " and ".join(_counted(label, counts[label], silos[label]) for label in labels)
        for labels in groups[:SHOWN]
    ]
    more = f"; and {len(groups) - SHOWN} more such groups" if len(groups) > SHOWN else ""
    return [
        f"labels that differ only in case or blanks are learned as different labels: "
        f"{'; '.join(shown)}{more}; if they mean the same, write them alike in the data."
    ]


def _folded(label: str) -> str:
    """A label without case and blanks; hyphens and underscores between letters count as blanks."""
    return "".join(re.split(r"\s+|(?<=[^\W\d])[-_]+(?=[^\W\d])", label.casefold()))


def _counted(label: str, count: int, silos: Mapping[str, None]) -> str:
    """A label with the number of its rows, or of its words, and the first silo that has it."""
    names = list(silos)
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{label!r:.40} ({count:,}{f' at {names[0]}{more}' if names else ''})"
