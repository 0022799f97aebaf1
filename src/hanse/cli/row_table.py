"""Who holds which rows, drawn for a terminal: clients × labels, in characters alone."""

import textwrap
from collections import Counter
from statistics import median

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text

from hanse.errors import cleaned
from hanse.journal.records import DivisionRecord

CLIENTS = 20  # most that are shown one by one
LARGEST, SMALLEST = 10, 5  # how many are shown if there are more
LETTERS = "abcdefghijklmnopqrstuvwxyz"  # name the columns of labels that are too many for bars
SHORTEST, LONGEST = 3, 16  # characters of the longest bar
EIGHTHS = " ▏▎▍▌▋▊▉█"
HEIGHTS = "·▁▂▃▄▅▆▇█"
GAP = 2  # characters between columns


def picture(table: DivisionRecord, width: int) -> Group:
    """Each client's training rows by label, on lines of `width` characters.

    A few labels have bars with their numbers; many have a character each, whose height says how
    many rows. Of many clients the largest and the smallest are shown.
    """
    totals = {name: sum(holding.train.values()) for name, holding in table.clients.items()}
    own = {name: [f"{table.clients[name].held:,}"] for name in totals}
    if table.labels:
        own = {name: [f"{totals[name]:,}", *cells] for name, cells in own.items()}
    heads = ["", "rows", "held"] if table.labels else ["", "held"]
    first = min(width // 4, max(map(cell_len, totals)))
    columns = [*zip(*own.values(), strict=True)]
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
    cells = {name: [_cut(name, first), *own[name], *drawn[name]] for name in shown}
    return Group(_grid(heads, cells, len(totals) - len(shown)), Text(key + _summary(table, totals)))


def _grid(heads: list[str], cells: dict[str, list[str]], between: int) -> Grid:
    """The table itself; `between` clients are left out in its middle."""
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
    """At most `limit` labels, and each client's rows of them; the rarest of more are one."""
    labels = list(table.labels) or ["rows"]
    rows = sum((Counter(holding.train) for holding in table.clients.values()), Counter[str]())
    limit = min(limit, len(LETTERS))
    others = len(labels) > limit
    if others:
        common = {label for label, _ in rows.most_common(limit - 1)}
        labels = [label for label in labels if label in common]
    counts = {}
    for name, holding in table.clients.items():
        counts[name] = [holding.train.get(label, 0) for label in labels]
        if others:
            counts[name].append(sum(holding.train.values()) - sum(counts[name]))
    return [*labels, *(["others"] if others else [])], counts


def _shown(totals: dict[str, int]) -> list[str]:
    """The clients that are shown: all, or the largest and the smallest."""
    if len(totals) <= CLIENTS:
        return list(totals)
    by_size = sorted(totals, key=lambda name: -totals[name])
    return by_size[:LARGEST] + by_size[-SMALLEST:]


def _key(labels: list[str], most: int, width: int) -> str:
    """What letters and heights stand for, in lines that part no letter from its label."""
    named = [f"{LETTERS[at]} {_cut(label, LONGEST)}" for at, label in enumerate(labels)]
    whole = ", ".join(name.replace(" ", "\N{NBSP}") for name in named)  # where textwrap cuts not
    return textwrap.fill(f"█ {most:,} rows; {whole}", width).replace("\N{NBSP}", " ") + "\n"


def _summary(table: DivisionRecord, totals: dict[str, int]) -> str:
    """The picture in words."""
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
    odd = f"{100 * skew(table):.0f} % of the rows would need another label"
    return f"{train}; {held}\n{odd} for all clients to have the same mixture"


def skew(table: DivisionRecord) -> float:
    """The share of training rows that stands in the way of equal mixtures of labels.

    The mean over rows of the total variation distance of their client's labels from all labels: 0
    for equal mixtures, below 1 for clients that share no label.
    """
    everything = sum((Counter(h.train) for h in table.clients.values()), Counter[str]())
    total = everything.total()
    amiss = 0.0
    for holding in table.clients.values():
        own = sum(holding.train.values())
        amiss += sum(
            abs(holding.train.get(label, 0) - own * count / total)
            for label, count in everything.items()
        )
    return amiss / 2 / total


def _bar(count: int, most: int, length: int) -> str:
    """A bar whose length says how many, and the number."""
    whole, part = divmod(-(-8 * length * count // most), 8)
    bar = "█" * whole + (EIGHTHS[part] if part else "")
    return f"{bar:<{length}} {count:>{len(f'{most:,}')},}"


def _height(count: int, most: int) -> str:
    """One character whose height says how many; a dot for none."""
    return HEIGHTS[-(-8 * count // most)]


def _cut(text: str, width: int) -> str:
    """The text in at most `width` characters of one line."""
    text = cleaned(text)
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"
