"""The lengths of the training examples in tokens, and the share of them that is cut."""

from dataclasses import dataclass, replace

import numpy as np

from hanse.data.example import Lost
from hanse.data.tokenization.token_cache import ANY_LENGTH
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


def measure(simulation: Simulation) -> Lengths:
    """The lengths of the training examples with these settings, from a part of the rows."""
    settings, learner = simulation.experiment, simulation.learner
    rows = [row for name in settings.client_names for row in simulation.dataset.train[name]]
    rows = rows[:: max(1, len(rows) // MEASURED)]
    labels, example_kind = simulation.dataset.labels, build_objective(settings).example_kind
    rendered = rendering(settings, labels, example_kind, learner.backbone)
    whole = replace(rendered, max_length=ANY_LENGTH).render(rows)
    sizes = np.array([example.longest for example in whole])
    lacking = [any(e.lost & ~Lost.REST for e in examples) for examples in rendered.examples(rows)]
    return Lengths(
        mean=float(sizes.mean()),
        most=float(np.quantile(sizes, 0.95)),
        limit=learner.backbone.max_length(settings.model.max_length),
        cut=float(np.mean(lacking)),
    )
