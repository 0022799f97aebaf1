"""Clients differ in the topics of their texts, by k-means over sentence embeddings.

The partition by features of FedNLP (Lin et al. 2022, arXiv:2104.08815): texts need no labels; the
cluster of a text's sentence embedding serves as its label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt
from threadpoolctl import threadpool_limits

from hanse.data.formats.row import Row
from hanse.data.partitioners.dirichlet import Alpha, Dirichlet
from hanse.data.partitioning import Partitioner
from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.randomness import RoundContext

with lazy_imports():
    from sklearn import cluster as sklearn_cluster

STARTS = 4  # runs of k-means; the best result is taken


@dataclass(frozen=True)
class Cluster(Partitioner):
    """Each client holds one cluster, the largest first; the sizes follow from the texts.

    encoder: a sentence encoder: minilm-l6, a folder, or a hub's owner/name.
    num_clusters: none: as many as clients.
    alpha: if given, the clusters are dealt as the partitioner `dirichlet` deals labels.
    """

    encoder: str = "minilm-l6"
    num_clusters: PositiveInt | None = None
    alpha: Alpha | None = None

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted."""
        count = self.num_clusters or num_clients
        if self.alpha is None and count != num_clients:
            raise UserError(
                f"cluster.num_clusters is {count} for {num_clients} clients, but without alpha "
                "each client holds one cluster; leave num_clusters out, or give alpha."
            )
        vectors = np.array([row.vector for row in rows], dtype=np.float64)
        clusters = _clusters(vectors, count, context)
        if self.alpha is None:
            return clusters
        labels = {index: str(number) for number, group in enumerate(clusters) for index in group}
        labelled = [Row(label=labels[index]) for index in range(len(rows))]
        return Dirichlet(self.alpha).assign(labelled, num_clients, context)


def _clusters(vectors: NDArray[np.float64], count: int, context: RoundContext) -> list[list[int]]:
    """The indices of each cluster's vectors (rows, width), sorted; the largest cluster first."""
    distinct = len(np.unique(vectors, axis=0))
    if distinct < count:
        raise UserError(
            f"cluster cannot make {count} clusters of {distinct} different texts; ask for fewer."
        )
    means = sklearn_cluster.KMeans(
        count, n_init=STARTS, random_state=context.derive("partition") % 2**32
    )
    with threadpool_limits(1):  # several threads would add up in any order, and ties could change
        labels = means.fit_predict(vectors)
    clusters = [np.flatnonzero(labels == number).tolist() for number in range(count)]
    return sorted(clusters, key=len, reverse=True)
