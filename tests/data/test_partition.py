"""Every partitioner deals every row to exactly one client, and says when it cannot."""

from collections import Counter
from typing import Any

import pytest

from hanse import parts
from hanse.data.formats import Row
from hanse.data.partition import Partitioner, partition
from hanse.errors import UserError
from hanse.randomness import Moment


def _rows(count: int = 600, labels: int = 6) -> list[Row]:
    return [
        Row(
            text=f"t{i}",
            label=str(i % labels),
            fields={"label": str(i % labels), "source": "abc"[min(i % 6, 2)]},
            place=f"f:{i + 1}",
        )
        for i in range(count)
    ]


def _build(spec: Any) -> Partitioner:
    found = parts.build("data/partitioners", spec)
    assert isinstance(found, Partitioner)
    return found


@pytest.mark.parametrize(
    "spec", ["iid", "dirichlet", {"dirichlet": {"alpha": 0.3}}, {"key": {"column": "source"}}]
)
@pytest.mark.parametrize("num_clients", [1, 2, 3])
def test_every_row_goes_to_one_client(spec: Any, num_clients: int) -> None:
    rows, partitioner = _rows(), _build(spec)
    clients = partitioner.assign(rows, num_clients, Moment(5))
    assert len(clients) == num_clients
    assert sorted(i for client in clients for i in client) == list(range(len(rows)))
    assert all(client and client == sorted(client) for client in clients)
    assert clients == partitioner.assign(rows, num_clients, Moment(5))
    dealt = partition(rows, num_clients, partitioner, Moment(5))
    assert dealt == [[rows[i] for i in client] for client in clients]


@pytest.mark.parametrize("spec", ["iid", "dirichlet"])
def test_the_seed_decides(spec: Any) -> None:
    partitioner = _build(spec)
    assert partitioner.assign(_rows(), 4, Moment(1)) != partitioner.assign(_rows(), 4, Moment(2))


def test_iid_clients_are_of_one_size_and_mixed() -> None:
    clients = partition(_rows(602), 4, _build("iid"), Moment(0))
    assert sorted(map(len, clients)) == [150, 150, 151, 151]
    assert all(set(Counter(row.label for row in client)) == set("012345") for client in clients)


def test_dirichlet_with_a_large_alpha_is_near_uniform() -> None:
    clients = partition(_rows(), 4, _build({"dirichlet": {"alpha": 1e6}}), Moment(0))
    for client in clients:
        assert all(24 <= n <= 26 for n in Counter(row.label for row in client).values())
        assert len(Counter(row.label for row in client)) == 6


def test_dirichlet_with_a_small_alpha_gives_each_label_to_one_client() -> None:
    clients = partition(_rows(), 3, _build({"dirichlet": {"alpha": 1e-3}}), Moment(0))
    for label in "012345":
        shares = [sum(row.label == label for row in client) for client in clients]
        assert max(shares) >= 99


def test_dirichlet_redraws_until_each_client_has_enough() -> None:
    free = _build({"dirichlet": {"alpha": 0.2}})
    held = _build({"dirichlet": {"alpha": 0.2, "min_size": 40}})
    seed = next(s for s in range(99) if min(map(len, free.assign(_rows(), 6, Moment(s)))) < 40)
    assert min(map(len, held.assign(_rows(), 6, Moment(seed)))) >= 40


@pytest.mark.parametrize(
    "settings", [{"alpha": 1e-3, "min_size": 9}, {"alpha": 1e-6}, {"min_size": 101}]
)
def test_dirichlet_gives_up_with_a_sentence(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"200 rows with 2 labels to 8 clients .*; raise alpha"):
        partition(_rows(200, labels=2), 8, _build({"dirichlet": settings}), Moment(0))


@pytest.mark.parametrize("settings", [{"alpha": 0}, {"alpha": float("inf")}, {"min_size": 0}])
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"dirichlet\.(alpha|min_size) came as"):
        _build({"dirichlet": settings})


def test_dirichlet_needs_labels() -> None:
    rows = [*_rows(5), Row(text="x", place="f:6")]
    with pytest.raises(UserError, match="f:6: the partitioner dirichlet goes by label"):
        partition(rows, 2, _build("dirichlet"), Moment(0))


def test_key_with_as_many_values_as_clients_follows_their_order() -> None:
    clients = partition(_rows(), 3, _build({"key": {"column": "source"}}), Moment(0))
    assert [{row.fields["source"] for row in client} for client in clients] == [{"a"}, {"b"}, {"c"}]


def test_key_with_more_values_deals_the_largest_first_and_splits_none() -> None:
    sizes = {"p": 5, "q": 4, "r": 3, "s": 3, "t": 1}
    rows = [Row(text="x", fields={"k": value}) for value, n in sizes.items() for _ in range(n)]
    clients = partition(rows, 2, _build({"key": {"column": "k"}}), Moment(0))
    # p → 0 (5); q → 1 (4); r → 1 (7); s → 0 (8); t → 1 (8)
    assert [{row.fields["k"] for row in client} for client in clients] == [
        {"p", "s"},
        {"q", "r", "t"},
    ]


def test_key_with_too_few_values() -> None:
    with pytest.raises(UserError, match="'source' has 3 values, too few for 4 clients; ask for at"):
        partition(_rows(), 4, _build({"key": {"column": "source"}}), Moment(0))


def test_key_with_a_missing_column() -> None:
    with pytest.raises(
        UserError, match=r"f:1: .* 'author', but the columns .* are: label, source;"
    ):
        partition(_rows(), 2, _build({"key": {"column": "author"}}), Moment(0))


@pytest.mark.parametrize("num_clients", [0, 11])
def test_as_many_rows_as_clients_at_least(num_clients: int) -> None:
    with pytest.raises(UserError, match=f"10 examples cannot be dealt to {num_clients} clients"):
        partition(_rows(10), num_clients, _build("iid"), Moment(0))
    assert [len(c) for c in partition(_rows(10), 10, _build("iid"), Moment(0))] == [1] * 10
