"""What all partitioners have in common: every row goes to one client, and the seed decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from hanse import registry
from hanse.data.formats.row import Row
from hanse.data.partitioning import Partitioner, groups, ordered, partition, proportional
from hanse.errors import UserError
from hanse.randomness import RoundContext
from samples import some_rows

# Every partitioner with settings that work for 6 labels and 3 clients of the rows below.
SPECS: dict[str, Mapping[str, Any]] = {
    "cluster": {},
    "dirichlet": {"alpha": 0.3},
    "distribution": {"distribution_array": [[1, 2, 3]] * 6},
    "exponential": {},
    "iid": {},
    "inner_dirichlet": {"alpha": 0.3},
    "key": {"column": "source"},
    "linear": {},
    "natural_id": {"partition_by": "source"},
    "pathological": {"num_classes_per_partition": 3},
    "shard": {"num_shards_per_partition": 2},
    "size": {"partition_sizes": [0.25, 0.25, 0.5]},
    "square": {},
}
UNDRAWN = {"key", "natural_id"}  # they go by a column alone


def _build(spec: Any) -> Partitioner:
    found = registry.build("data/partitioners", spec)
    assert isinstance(found, Partitioner)
    return found


def test_every_partitioner_is_tried_here() -> None:
    assert set(SPECS) == set(registry.names("data/partitioners"))


@pytest.mark.parametrize("name", SPECS)
def test_every_row_goes_to_one_client(name: str) -> None:
    rows, partitioner = some_rows(), _build({name: SPECS[name]})
    clients = partitioner.assign(rows, 3, RoundContext(5))
    assert len(clients) == 3
    assert sorted(i for client in clients for i in client) == list(range(len(rows)))
    assert all(client and client == sorted(client) for client in clients)
    assert clients == partitioner.assign(rows, 3, RoundContext(5))
    dealt = partition(rows, 3, partitioner, RoundContext(5))
    assert dealt == [[rows[i] for i in client] for client in clients]


@pytest.mark.parametrize("name", sorted(SPECS.keys() - {"distribution", "natural_id", "size"}))
def test_one_client_holds_all(name: str) -> None:
    settings = {**SPECS[name]}
    if name == "pathological":
        settings["num_classes_per_partition"] = 6
    assert _build({name: settings}).assign(some_rows(), 1, RoundContext(5)) == [list(range(600))]


@pytest.mark.parametrize("name", SPECS)
def test_the_seed_decides_where_anything_is_drawn(name: str) -> None:
    partitioner = _build({name: SPECS[name]})
    draws = [partitioner.assign(some_rows(), 3, RoundContext(seed)) for seed in range(5)]
    assert (len({str(draw) for draw in draws}) > 1) == (name not in UNDRAWN)


@pytest.mark.parametrize(
    "name", ["dirichlet", "distribution", "inner_dirichlet", "pathological", "shard"]
)
def test_any_column_may_be_the_label(name: str) -> None:
    settings = {**SPECS[name], "partition_by": "label"}
    plain = some_rows()
    topics = [
        Row(text=row.text, fields={"topic": str(row.label)}, place=row.place) for row in plain
    ]
    by_label = _build({name: settings}).assign(plain, 3, RoundContext(2))
    assert (
        _build({name: settings | {"partition_by": "topic"}}).assign(topics, 3, RoundContext(2))
        == by_label
    )
    with pytest.raises(UserError, match=f"f:1: the partitioner {name} goes by label"):
        partition(topics, 3, _build({name: settings}), RoundContext(2))
    with pytest.raises(UserError, match=r"f:1: .* 'theme', but the columns .* are: topic;"):
        partition(topics, 3, _build({name: settings | {"partition_by": "theme"}}), RoundContext(2))


@dataclass(frozen=True)
class Greedy(Partitioner):
    """One of somebody's own, which gives all to the first."""

    def assign(self, rows: Any, num_clients: int, context: RoundContext) -> list[list[int]]:
        return [list(range(len(rows))), *([] for _ in range(num_clients - 1))]


def test_nobody_is_left_without_rows() -> None:
    with pytest.raises(
        UserError, match=r"greedy leaves 2 of 3 clients without any of the 600 rows"
    ):
        partition(some_rows(), 3, Greedy(), RoundContext(0))
    # 40 rows in shares of 25.3, 9.3, 3.4, 1.3, 0.46 …: two are missing, to 0.46 and to 3.4.
    with pytest.raises(UserError, match="exponential leaves 7 of 12 clients"):
        partition(some_rows(40), 12, _build("exponential"), RoundContext(0))


def test_groups_are_in_order_and_numbers_by_size() -> None:
    assert ordered(["10", "9", "b", "9"]) == ["10", "9", "b"]
    assert ordered(["10", "9", "-1.5", "9"]) == ["-1.5", "9", "10"]
    rows = [Row(label=value) for value in ("10", "9", "10")]
    assert list(groups(rows, _build("dirichlet")).items()) == [("9", [1]), ("10", [0, 2])]


def test_shares_are_within_one_of_exact_and_the_largest_remainders_come_first() -> None:
    assert proportional([1, 1, 1], 8) == [3, 3, 2]
    assert proportional([3, 3, 4], 10) == [3, 3, 4]  # 0.3 · 10 is not 3 in floats
    assert proportional([0, 5, 0], 7) == [0, 7, 0]
    draw = np.random.default_rng(1)
    for _ in range(200):
        weights, total = draw.random(draw.integers(1, 9)) + 1e-9, int(draw.integers(0, 50))
        sizes = proportional(weights, total)
        exact = weights / weights.sum() * total
        assert sum(sizes) == total and np.abs(sizes - exact).max() < 1
        # Who was rounded up has no smaller a remainder than who was rounded down.
        remainders = exact - np.floor(exact)
        up = np.array(sizes) > np.floor(exact)
        assert not up.any() or up.all() or remainders[up].min() >= remainders[~up].max()


@pytest.mark.parametrize("num_clients", [0, 11])
def test_as_many_rows_as_clients_at_least(num_clients: int) -> None:
    with pytest.raises(UserError, match=f"10 rows cannot be dealt to {num_clients} clients"):
        partition(some_rows(10), num_clients, _build("iid"), RoundContext(0))
    assert [len(c) for c in partition(some_rows(10), 10, _build("iid"), RoundContext(0))] == [
        1
    ] * 10
