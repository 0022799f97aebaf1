"""What each partitioner promises, against closed forms and brute force."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hanse import registry
from hanse.data.formats.row import Row
from hanse.data.partitioning import Partitioner, partition
from hanse.errors import UserError
from hanse.randomness import RoundContext
from samples import some_rows


def _build(spec: Any) -> Partitioner:
    found = registry.build("data/partitioners", spec)
    assert isinstance(found, Partitioner)
    return found


def _dealt(name: str, rows: Sequence[Row], clients: int, seed: int = 0, **settings: Any) -> Any:
    return partition(rows, clients, _build({name: settings}), RoundContext(seed))


def _table(clients: list[list[Row]], labels: int) -> Any:
    """(clients, labels): how many rows of each label each client holds."""
    counts = [Counter(row.label for row in rows) for rows in clients]
    return np.array([[count[str(label)] for label in range(labels)] for count in counts])


def test_iid_clients_are_of_one_size_and_mixed() -> None:
    clients = partition(some_rows(602), 4, _build("iid"), RoundContext(0))
    assert sorted(map(len, clients)) == [150, 150, 151, 151]
    assert all(set(Counter(row.label for row in client)) == set("012345") for client in clients)


def test_dirichlet_with_a_large_alpha_is_near_uniform() -> None:
    clients = partition(some_rows(), 4, _build({"dirichlet": {"alpha": 1e6}}), RoundContext(0))
    for client in clients:
        assert all(24 <= n <= 26 for n in Counter(row.label for row in client).values())
        assert len(Counter(row.label for row in client)) == 6


def test_dirichlet_with_a_small_alpha_gives_each_label_to_one_client() -> None:
    clients = partition(some_rows(), 3, _build({"dirichlet": {"alpha": 1e-3}}), RoundContext(0))
    for label in "012345":
        shares = [sum(row.label == label for row in client) for client in clients]
        assert max(shares) >= 99


def test_dirichlet_redraws_until_each_client_has_enough() -> None:
    free = _build({"dirichlet": {"alpha": 0.2}})
    held = _build({"dirichlet": {"alpha": 0.2, "min_partition_size": 40}})
    seed = next(
        s for s in range(99) if min(map(len, free.assign(some_rows(), 6, RoundContext(s)))) < 40
    )
    assert min(map(len, held.assign(some_rows(), 6, RoundContext(seed)))) >= 40


@pytest.mark.parametrize(
    "settings",
    [{"alpha": 1e-3, "min_partition_size": 9}, {"alpha": 1e-6}, {"min_partition_size": 101}],
)
def test_dirichlet_gives_up_with_a_sentence(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"200 rows with 2 labels to 8 clients .*; raise alpha"):
        partition(some_rows(200, labels=2), 8, _build({"dirichlet": settings}), RoundContext(0))


@pytest.mark.parametrize(
    "settings", [{"alpha": 0}, {"alpha": float("inf")}, {"min_partition_size": 0}]
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"dirichlet\.(alpha|min_partition_size) is"):
        _build({"dirichlet": settings})


def test_dirichlet_needs_labels() -> None:
    rows = [*some_rows(5), Row(text="x", place="f:6")]
    with pytest.raises(UserError, match="f:6: the partitioner dirichlet goes by label"):
        partition(rows, 2, _build("dirichlet"), RoundContext(0))


def test_key_with_as_many_values_as_clients_follows_their_order() -> None:
    clients = partition(some_rows(), 3, _build({"key": {"column": "source"}}), RoundContext(0))
    assert [{row.fields["source"] for row in client} for client in clients] == [{"a"}, {"b"}, {"c"}]


def test_key_with_more_values_deals_the_largest_first_and_splits_none() -> None:
    sizes = {"p": 5, "q": 4, "r": 3, "s": 3, "t": 1}
    rows = [Row(text="x", fields={"k": value}) for value, n in sizes.items() for _ in range(n)]
    clients = partition(rows, 2, _build({"key": {"column": "k"}}), RoundContext(0))
    # p → 0 (5); q → 1 (4); r → 1 (7); s → 0 (8); t → 1 (8)
    assert [{row.fields["k"] for row in client} for client in clients] == [
        {"p", "s"},
        {"q", "r", "t"},
    ]


def test_key_with_too_few_values() -> None:
    with pytest.raises(UserError, match="'source' has 3 values, too few for 4 clients; ask for at"):
        partition(some_rows(), 4, _build({"key": {"column": "source"}}), RoundContext(0))


def test_key_with_a_missing_column() -> None:
    with pytest.raises(
        UserError, match=r"f:1: .* 'author', but the columns .* are: label, source;"
    ):
        partition(some_rows(), 2, _build({"key": {"column": "author"}}), RoundContext(0))


def test_dirichlet_shares_have_the_mean_and_the_variance_of_the_distribution() -> None:
    rows, clients, alpha = some_rows(1000, labels=1), 4, 0.7
    shares = np.array(
        [
            [
                len(held) / 1000
                for held in _build({"dirichlet": {"alpha": alpha}}).assign(
                    rows, clients, RoundContext(seed)
                )
            ]
            for seed in range(800)
        ]
    )  # (draws, clients)
    mean = 1 / clients
    variance = mean * (1 - mean) / (clients * alpha + 1)
    assert np.abs(shares.mean(axis=0) - mean).max() < 4 * np.sqrt(variance / 800)
    assert np.abs(shares.var(axis=0) / variance - 1).max() < 0.2


def test_self_balancing_gives_no_more_to_who_has_more_than_the_mean() -> None:
    kept = 0
    for seed in range(30):
        free = _table(_dealt("dirichlet", some_rows(), 4, seed, alpha=0.5), 6)
        table = _table(_dealt("dirichlet", some_rows(), 4, seed, alpha=0.5, self_balancing=True), 6)
        full = np.cumsum(table, axis=1)[:, :-1] > 600 / 4  # after each label but the last
        assert not table[:, 1:][full].any()
        kept += bool((free[:, 1:][np.cumsum(free, axis=1)[:, :-1] > 600 / 4]).any())
    assert kept > 20, "what is forbidden happens without it"


def test_inner_dirichlet_keeps_to_the_sizes() -> None:
    assert sorted(map(len, _dealt("inner_dirichlet", some_rows(602), 4))) == [
        150,
        150,
        151,
        151,
    ]
    sizes = [100, 200, 300]
    found = _dealt("inner_dirichlet", some_rows(), 3, alpha=0.1, partition_sizes=sizes)
    assert list(map(len, found)) == sizes
    found = _dealt("inner_dirichlet", some_rows(), 3, partition_sizes=[0.5, 0.3, 0.2])
    assert list(map(len, found)) == [300, 180, 120]


def test_inner_dirichlet_with_a_large_alpha_is_near_uniform() -> None:
    table = _table(_dealt("inner_dirichlet", some_rows(6000), 6, alpha=1e6), 6)
    # 1000 rows with 6 equal chances: multinomial, 167 ± 12.
    assert np.abs(table - 1000 / 6).max() < 60


def test_inner_dirichlet_with_a_small_alpha_gives_a_client_one_label_while_there_is_any() -> None:
    seen = set()
    for seed in range(20):
        first, second = _table(_dealt("inner_dirichlet", some_rows(200, 2), 2, seed, alpha=1e-6), 2)
        if first.max() == 100:  # they want different labels, and get them
            assert second.max() == 100 and first.argmax() != second.argmax()
        else:  # they want the same, and share it
            assert first.min() > 25 and second.min() > 25
        seen.add(first.max() == 100)
    assert seen == {True, False}


def test_inner_dirichlet_draws_labels_by_the_dirichlet_of_the_client() -> None:
    """Two rows of a client have the same label with probability (alpha + 1) / (L·alpha + 1)."""
    alpha, labels, draws, same = 0.5, 4, 600, 0
    rows = some_rows(40, labels)
    for seed in range(draws):
        first, second = _dealt(
            "inner_dirichlet", rows, 2, seed, alpha=alpha, partition_sizes=[2, 38]
        )[0]
        same += first.label == second.label
    chance = (alpha + 1) / (labels * alpha + 1)
    assert abs(same / draws - chance) < 4 * np.sqrt(chance * (1 - chance) / draws)


@pytest.mark.parametrize("mode", ["random", "deterministic", "first-deterministic"])
@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_pathological_gives_each_client_exactly_k_labels(mode: str, k: int) -> None:
    settings = {"num_classes_per_partition": k, "class_assignment_mode": mode}
    # With one label each, ten clients at random hold all six in one draw of four.
    table = _table(_dealt("pathological", some_rows(602), 10, 3, **settings), 6)
    assert ((table > 0).sum(axis=1) == k).all()
    for label in range(6):
        held = table[:, label][table[:, label] > 0]
        assert held.max() - held.min() <= 1
    for client in range(10):
        if mode == "deterministic":
            assert all(table[client, (client + i) % 6] for i in range(k))
        elif mode == "first-deterministic":
            assert table[client, client % 6]


def test_pathological_at_random_prefers_no_label() -> None:
    tables = [_table(_dealt("pathological", some_rows(), 6, seed), 6) > 0 for seed in range(200)]
    # Each of 6 labels is held by 2 of 6 clients in the mean, by symmetry.
    assert np.abs(np.mean(tables, axis=0) - 1 / 3).max() < 0.15


@pytest.mark.parametrize(
    ("settings", "clients", "said"),
    [
        ({"num_classes_per_partition": 7}, 3, "is 7, but label has 6 values; lower it"),
        (
            {"num_classes_per_partition": 1},
            5,
            "5 clients with 1 of the 6 values .* without a client",
        ),
        ({"class_assignment_mode": "deterministic"}, 4, r"without a client \('5'\); raise"),
        ({"num_classes_per_partition": 6}, 101, "101 clients are to hold the label '0', of which"),
        ({"num_classes_per_partition": 0}, 3, "num_classes_per_partition is 0"),
        ({"class_assignment_mode": "any"}, 3, "class_assignment_mode is 'any'"),
    ],
)
def test_pathological_says_what_cannot_be(settings: Any, clients: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        _dealt("pathological", some_rows(), clients, **settings)


@pytest.mark.parametrize(
    ("settings", "clients", "sizes"),
    [
        ({}, 3, [100] * 6),  # two shards each
        ({"num_shards_per_partition": 1}, 3, [200] * 3),
        ({"num_shards_per_partition": 4}, 3, [50] * 12),
        ({"num_shards_per_partition": 7}, 2, [43] * 12 + [42] * 2),
        ({"shard_size": 50}, 5, [50] * 12),
        ({"shard_size": 110}, 4, [110] * 5 + [50]),
    ],
)
def test_a_client_of_shard_holds_whole_shards(
    settings: Any, clients: int, sizes: list[int]
) -> None:
    rows = some_rows()
    ends = np.cumsum(sizes)
    by_label = sorted(range(600), key=lambda index: (rows[index].label, index))
    shard_of = {
        row: int(np.searchsorted(ends, at, side="right")) for at, row in enumerate(by_label)
    }
    found = _build({"shard": settings}).assign(rows, clients, RoundContext(1))
    numbers = []
    for held in found:
        shards = Counter(shard_of[index] for index in held)
        assert all(count == sizes[shard] for shard, count in shards.items())
        if len(set(sizes)) == 1 and 100 % sizes[0] == 0:  # no shard has two labels in it
            assert len({rows[index].label for index in held}) <= len(shards)
        numbers.append(len(shards))
    assert sum(numbers) == len(sizes) and max(numbers) - min(numbers) <= 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_shards_per_partition": 2, "shard_size": 9}, "has both .* leave one out"),
        ({"shard_size": 300}, "makes 2 shards of 600 rows for 3 clients"),
        ({"num_shards_per_partition": 201}, "makes 603 shards of 600 rows"),
        ({"shard_size": 0}, "shard_size is 0"),
    ],
)
def test_shard_says_what_cannot_be(settings: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        _dealt("shard", some_rows(), 3, **settings)


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("linear", [1, 2, 3, 4]),
        ("square", [1, 4, 9, 16]),
        ("exponential", [np.e, np.e**2, np.e**3, np.e**4]),
    ],
)
def test_sizes_are_proportional(name: str, units: list[float]) -> None:
    clients = _dealt(name, some_rows(1000), 4)
    exact = np.array(units) / sum(units) * 1000
    assert np.abs(np.array([len(rows) for rows in clients]) - exact).max() < 1
    assert set(Counter(row.label for row in clients[-1])) == set("012345")


def test_size_obeys() -> None:
    assert [len(c) for c in _dealt("size", some_rows(), 3, partition_sizes=[1, 99, 500])] == [
        1,
        99,
        500,
    ]
    shares = [0.01, 0.19, 0.8]
    assert [len(c) for c in _dealt("size", some_rows(), 3, partition_sizes=shares)] == [
        6,
        114,
        480,
    ]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([300, 300], "has 2 numbers for 3 clients"),
        ([100, 100, 100], "add up to 300, but there are 600 rows to deal; correct them, or"),
        ([300, 300, 300], "add up to 900, but there are 600"),
        ([0.2, 0.2, 0.2], r"add up to 0\.6; shares add up to 1"),
        ([-1, 300, 301], r"size\.partition_sizes.* is -1"),
        ([0, 300, 300], r"size\.partition_sizes.* is 0"),
        (["x", 1, 2], r"size\.partition_sizes.* is 'x'"),
    ],
)
def test_size_says_what_cannot_be(sizes: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        _dealt("size", some_rows(), 3, partition_sizes=sizes)


def test_distribution_deals_the_matrix() -> None:
    matrix = np.array([[10, 90, 0], [100, 0, 0], [33, 33, 34]])
    rows = some_rows(300, labels=3)
    found = _table(_dealt("distribution", rows, 3, distribution_array=matrix.tolist()), 3)
    assert (found == matrix.T).all()
    scaled = (matrix * 7.5).tolist()
    assert (_table(_dealt("distribution", rows, 3, distribution_array=scaled), 3) == found).all()
    draw = np.random.default_rng(0).random((3, 4)) + 0.01
    found = _table(_dealt("distribution", rows, 4, distribution_array=draw.tolist()), 3)
    assert np.abs(found.T - 100 * draw / draw.sum(axis=1, keepdims=True)).max() < 1


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ([[1, 1]] * 2, r"has 2 lines, but label has 3 values \(0, 1, 2\)"),
        ([[1, 1], [1], [1, 1]], r"has \[1.0\] for the label '1'; write 2 numbers"),
        ([[1, 1], [0, 0], [1, 1]], "for the label '1'; write 2 numbers, .* not all 0"),
        ([[1, 1], [-1, 2], [1, 1]], r"distribution_array.* is -1"),
        ([[1, 0]] * 3, "distribution leaves 1 of 2 clients without"),
    ],
)
def test_distribution_says_what_cannot_be(matrix: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        _dealt("distribution", some_rows(300, labels=3), 2, distribution_array=matrix)


def test_natural_id_makes_a_client_of_each_value() -> None:
    clients = _dealt("natural_id", some_rows(), 3, partition_by="source")
    assert [{row.fields["source"] for row in rows} for rows in clients] == [{"a"}, {"b"}, {"c"}]
    assert clients == _dealt("key", some_rows(), 3, column="source")
    with pytest.raises(UserError, match="of 'source', and there are 3, but num_clients is 4; set"):
        _dealt("natural_id", some_rows(), 4, partition_by="source")


def _blobs(sizes: list[int], spread: float = 0.1) -> list[Row]:
    """Rows whose vectors lie around as many far points as there are sizes; the label says which."""
    draw = np.random.default_rng(7)
    labels = [number for number, size in enumerate(sizes) for _ in range(size)]
    draw.shuffle(labels)
    centres = 10 * np.eye(len(sizes))
    return [
        Row(label=str(label), vector=tuple(centres[label] + draw.normal(0, spread, len(sizes))))
        for label in labels
    ]


def test_cluster_finds_what_belongs_together_the_largest_first() -> None:
    table = _table(_dealt("cluster", _blobs([20, 70, 40]), 3), 3)
    assert (table == [[0, 70, 0], [0, 0, 40], [20, 0, 0]]).all()


def test_cluster_with_alpha_deals_clusters_as_dirichlet_deals_labels() -> None:
    rows = _blobs([20, 70, 40])
    found = _build({"cluster": {"num_clusters": 3, "alpha": 0.5}}).assign(rows, 2, RoundContext(4))
    # The same rows with the clusters' numbers, the largest first, as labels.
    numbered = [Row(label={"1": "0", "2": "1", "0": "2"}[str(row.label)]) for row in rows]
    assert found == _build({"dirichlet": {"alpha": 0.5}}).assign(numbered, 2, RoundContext(4))


def test_cluster_says_what_cannot_be() -> None:
    rows = [Row(vector=(1.0, 0.0))] * 5 + [Row(vector=(0.0, 1.0))] * 5
    with pytest.raises(UserError, match="cannot make 3 clusters of 2 different texts"):
        _dealt("cluster", rows, 3)
    with pytest.raises(UserError, match="num_clusters is 5 for 3 clients"):
        _dealt("cluster", rows, 3, num_clusters=5)
    with pytest.raises(UserError, match=r"cluster\.alpha is -1"):
        _dealt("cluster", rows, 2, alpha=-1)
