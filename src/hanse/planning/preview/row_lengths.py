"""The lengths of the training examples in tokens, and the share of them that is cut."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hanse.data.example import Lost
from hanse.data.formats.row import Row
from hanse.data.tokenization.token_cache import ANY_LENGTH, Rendering
from hanse.experiment.assembly.assemble import Simulation
from hanse.experiment.assembly.resources import rendering
from hanse.experiment.schema import build_objective

MEASURED = 1000  # rows whose length in tokens is counted


@dataclass(frozen=True)
class Lengths:
    """Tokens of the training examples before cutting, and the share of them that is cut."""

    mean: float
    most: float  # 95 % are no longer
    limit: int  # max_length
    cut: float


def measure(simulation: Simulation) -> dict[Lengths, list[str]]:
    """The lengths with these settings, from a part of the rows, and the clients that have them.

    Each client's rows are read by its own model; those that are read alike are measured together.
    """
    groups: dict[tuple[object, ...], tuple[Rendering, list[str]]] = {}
    labels, known = simulation.dataset.labels, dict[int, Rendering]()
    for name in simulation.experiment.client_names:
        client = simulation.clients.get(name, simulation)  # one that takes no part reads as all
        settings = client.experiment
        if id(settings) not in known:
            kind = build_objective(settings).example_kind
            known[id(settings)] = rendering(settings, labels, kind, client.learner.backbone)
        alike = known[id(settings)]
        model = settings.model.model_name_or_path
        key = model, alike.template, alike.max_length, alike.windowed
        groups.setdefault(key, (alike, []))[1].append(name)
    lengths: dict[Lengths, list[str]] = {}
    for alike, names in groups.values():
        if rows := [row for name in names for row in simulation.dataset.train[name]]:
            lengths.setdefault(_measured(alike, rows), []).extend(names)
    return lengths


def _measured(rendered: Rendering, rows: Sequence[Row]) -> Lengths:
    """The lengths of these rows."""
    some = rows[:: max(1, len(rows) // MEASURED)]
    whole = replace(rendered, max_length=ANY_LENGTH).render(some)
    sizes = np.array([example.longest for example in whole])
    lacking = [any(e.lost & ~Lost.REST for e in examples) for examples in rendered.examples(some)]
    return Lengths(
        mean=float(sizes.mean()),
        most=float(np.quantile(sizes, 0.95)),
        limit=rendered.max_length,
        cut=float(np.mean(lacking)),
    )
