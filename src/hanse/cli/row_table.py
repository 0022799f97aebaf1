"""The division of the rows (clients × labels), drawn with characters for a terminal."""

import textwrap
from collections import Counter
from statistics import median

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text

from hanse.errors import cleaned
from hanse.journal.records import DivisionRecord

CLIENTS = 20  # with more, only some are shown
LARGEST, SMALLEST = 10, 5  # the numbers of clients that are shown then
LETTERS = "abcdefghijklmnopqrstuvwxyz"  # names of columns if there are too many labels for bars
SHORTEST, LONGEST = 3, 16  # characters of the longest bar
EIGHTHS = " ▏▎▍▌▋▊▉█"
HEIGHTS = "·▁▂▃▄▅▆▇█"
GAP = 2  # characters between columns


def picture(table: DivisionRecord, width: int) -> Group:
    """Draw each client's training rows by label, on lines of `width` characters.

    Few labels have bars with numbers; many labels have one character each, whose height stands for
    the number of rows. If there are many clients, the largest and the smallest are shown.
    """
    totals = {name: sum(client.train.values()) for name, client in table.clients.items()}
    sizes = {name: [f"{table.clients[name].held:,}"] for name in totals}
    if table.labels:
        sizes = {name: [f"{totals[name]:,}", *cells] for name, cells in sizes.items()}
    heads = ["", "rows", "held"] if table.labels else ["", "held"]
    first = min(width // 4, max(map(cell_len, totals)))
    columns = [*zip(*sizes.values(), strict=True)]
    space = width - first - sum(max(4, *map(len, column)) + GAP for column in columns) - GAP
    labels, counts = _counts(table, (space + 1) // 2)
    most = max(1, *map(max, counts.values()))
    room = space // len(labels) - GAP
    bar = min(LONGEST, room - len(f" {most:,}"))
    if bar >= SHORTEST:
        heads += [_cut(label, room) for label in labels]
        drawn = {name: [_bar(n, most, bar) for n in row] for name, row in counts.items()}
        key = ""
    else:
        heads.append(" ".join(LETTERS[: len(labels)]))
        drawn = {name: [" ".join(_height(n, most) for n in row)] for name, row in counts.items()}
        key = _key(labels, most, width)
    shown = _shown(totals)
    cells = {name: [_cut(name, first), *sizes[name], *drawn[name]] for name in shown}
    return Group(_grid(heads, cells, len(totals) - len(shown)), Text(key + _summary(table, totals)))


def _grid(heads: list[str], cells: dict[str, list[str]], between: int) -> Grid:
    """The table; `between` clients are left out in its middle."""
    grid = Grid(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    numbers = heads.index("held")
    for at, head in enumerate(heads):
        grid.add_column(Text(head), justify="right" if 1 <= at <= numbers else "left", no_wrap=True)
    for number, row in enumerate(cells.values()):
        if between and number == LARGEST:
            grid.add_row(f"{between} more")
        grid.add_row(*map(Text, row))
    return grid


def _counts(table: DivisionRecord, limit: int) -> tuple[list[str], dict[str, list[int]]]:
    """At most `limit` labels, the rarest ones merged into "others", and each client's counts."""
    labels = list(table.labels) or ["rows"]
    rows = sum((Counter(client.train) for client in table.clients.values()), Counter[str]())
    limit = min(limit, len(LETTERS))
    others = len(labels) > limit
    if others:
        common = {label for label, _ in rows.most_common(limit - 1)}
        labels = [label for label in labels if label in common]
    counts = {}
    for name, client in table.clients.items():
        counts[name] = [client.train.get(label, 0) for label in labels]
        if others:
            counts[name].append(sum(client.train.values()) - sum(counts[name]))
    return [*labels, *(["others"] if others else [])], counts


def _shown(totals: dict[str, int]) -> list[str]:
    """The clients that are shown: all, or the largest and the smallest."""
    if len(totals) <= CLIENTS:
        return list(totals)
    by_size = sorted(totals, key=lambda name: -totals[name])
    return by_size[:LARGEST] + by_size[-SMALLEST:]


def _key(labels: list[str], most: int, width: int) -> str:
    """The legend of letters and heights; a letter and its label stay on one line."""
    named = [f"{LETTERS[at]} {_cut(label, LONGEST)}" for at, label in enumerate(labels)]
    whole = ", ".join(
        name.replace(" ", "\N{NBSP}") for name in named
    )  # textwrap does not break there
    return textwrap.fill(f"█ {most:,} rows; {whole}", width).replace("\N{NBSP}", " ") + "\n"


def _summary(table: DivisionRecord, totals: dict[str, int]) -> str:
    """A summary of the division in words."""
    low, middle, high = min(totals.values()), median(totals.values()), max(totals.values())
    if len(totals) == 1:
        train = f"1 client trains on {low:,} rows"
    elif low == high:
        train = f"{len(totals)} clients train on {low:,} rows each"
    else:
        train = (
            f"{len(totals)} clients train on {low:,} to {high:,} rows, {middle:,.0f} in the median"
        )
    held = f"{table.validation:,} rows are held out for validation, {table.test:,} for the test"
    if len(totals) == 1 or len(table.labels) < 2:
        return f"{train}; {held}"
    share = f"{100 * skew(table):.0f} % of the rows would need another label"
    return f"{train}; {held}\n{share} for all clients to have the same mixture"


def skew(table: DivisionRecord) -> float:
    """The share of training rows that would need another label for equal mixtures of labels.

    It is the mean over rows of the total variation distance between the labels of the row's client
    and all labels: 0 for equal mixtures, below 1 for clients that share no label.
    """
    counts = sum((Counter(client.train) for client in table.clients.values()), Counter[str]())
    total = counts.total()
    difference = 0.0
    for client in table.clients.values():
        rows = sum(client.train.values())
        difference += sum(
            abs(client.train.get(label, 0) - rows * count / total)
            for label, count in counts.items()
        )
    return difference / 2 / total


def _bar(count: int, most: int, length: int) -> str:
    """A bar of a length that stands for the number, and the number."""
    whole, part = divmod(-(-8 * length * count // most), 8)
    bar = "█" * whole + (EIGHTHS[part] if part else "")
    return f"{bar:<{length}} {count:>{len(f'{most:,}')},}"


def _height(count: int, most: int) -> str:
    """One character of a height that stands for the number; a dot for 0."""
    return HEIGHTS[-(-8 * count // most)]


def _cut(text: str, width: int) -> str:
    """Cut a text to at most `width` characters of one line."""
    text = cleaned(text)
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"
