"""A silo's share of the mean, estimated from its own moves, and the mark of a small silo."""

import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.mark import OwnersMark, laid
from hanse.audit.ownership.settings import STRONGEST, OwnershipSettings
from hanse.audit.ownership.share import FILE, LEAST, Move, Moves, share_of
from hanse.audit.ownership.verification import detected
from hanse.errors import UserError
from hanse.randomness import RoundContext

KEYS = [OwnershipKey(f"o{n}", f"{n:064x}", place="weights") for n in range(4)]
NUMBERS, ROWS, STEPS, RATE = 6000, 20, 8, 0.01
ROW = torch.ones(1, NUMBERS) / NUMBERS
BAD = ("3", "[[1, 2]]", '[[1, 2, 3, "x"]]', "[[1, 2, 3, NaN]]")
PROVED = 56 / 64  # of the bits, p = 5e-10


@pytest.mark.parametrize("share", [0.02, 0.25, 0.9])
def test_the_share_is_what_arrives_of_the_own_moves(share: float) -> None:
    draw = torch.Generator().manual_seed(3)
    moves, present = [], 0.0
    for round in range(1, 9):
        end = present + 6.0
        moves.append(Move(round, present, end, 1.0))
        others = float(torch.randn(1, generator=draw)) / 8  # the mean over 64 bits
        present += share * 6.0 + others
    assert share_of(moves, present, 4) == pytest.approx(share, abs=0.03)


def test_without_moves_it_is_that_of_equal_rows_and_it_is_bounded() -> None:
    assert share_of([], 0.3, 4) == 0.25
    assert share_of([], 0.3, 0) == share_of([], 0.3, 1) == 1.0
    assert share_of([Move(1, 0.0, 9.0, 1.0)], -5.0, 4) == LEAST, "the model went the other way"
    assert share_of([Move(1, 0.0, 9.0, 1.0)], 90.0, 4) == 1.0
    assert share_of([Move(1, 0.0, 0.0, 0.0)], 5.0, 4) == 0.25, "tensors of zeros tell nothing"


def test_moves_of_rounds_that_are_repeated_are_dropped(tmp_path: Path) -> None:
    moves = Moves(tmp_path / "silo", "c" * 64)
    assert moves.before(9) == []
    for round in (1, 2, 3):
        moves.keep(Move(round, 0.1 * round, 2.0, 1 / 3))
    assert [move.round for move in moves.before(3)] == [1, 2]
    assert moves.before(3)[1] == Move(2, 0.2, 2.0, 1 / 3)
    moves.keep(Move(2, 0.5, 2.0, 1.0))
    assert [(move.round, move.start) for move in moves.before(9)] == [(1, 0.1), (2, 0.5)]
    assert stat.S_IMODE((tmp_path / "silo" / FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"moves": []}', *(f'{{"commitment": "c", "moves": {t}}}' for t in BAD)],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=r"mark\.json is damaged; bring it back"):
        Moves(tmp_path, "c" * 64).before(2)


def rates(shares: Sequence[float], folder: Path | None, rounds: int = 12) -> list[float]:
    """Rates of four owners' keys after a toy federation; folder: where they keep their moves."""
    draw = torch.Generator().manual_seed(1)
    model, rows = torch.zeros(NUMBERS), torch.randn(4, ROWS, NUMBERS, generator=draw)
    marks = [laid(key, OwnershipSettings("unused"), {"w": model}) for key in KEYS]
    for round in range(1, rounds + 1):
        change = torch.zeros(NUMBERS)
        for n, (own, share) in enumerate(zip(marks, shares, strict=True)):
            request = own if folder is None else own.for_request(folder / str(n))
            context = RoundContext(0, round, clients=4)
            change += share * (_trained(request, context, model, rows[n]) - model)
        model = model + change
    return [detected(key, {"w": model}).rate for key in KEYS]


def _trained(own: OwnersMark, context: RoundContext, start: Tensor, rows: Tensor) -> Tensor:
    """A silo's tensor after steps of Adam on its rows, beside its mark."""
    tensor = start.clone().requires_grad_()
    pull = own.pull({"w": tensor}, context)
    optimizer = torch.optim.Adam([tensor], RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (rows @ (tensor - 1)).square().mean().backward()
        pull({"w": tensor}).backward()
        optimizer.step()
    own.trained({"w": tensor})
    return tensor.detach()


def test_a_silo_with_few_rows_proves_its_mark(tmp_path: Path) -> None:
    shares = (0.03, 0.32, 0.32, 0.33)
    small, *others = rates(shares, tmp_path)
    assert small >= PROVED and others == [1.0, 1.0, 1.0]
    assert rates(shares, None)[0] < PROVED - 0.05, "as if all silos had as many rows"


def test_silos_with_equal_rows_are_pulled_as_before(tmp_path: Path) -> None:
    assert rates((0.25,) * 4, tmp_path) == [1.0] * 4


def test_a_mark_that_is_not_averaged_keeps_no_moves(tmp_path: Path) -> None:
    alone = laid(KEYS[0], OwnershipSettings("unused"), {"w": torch.zeros(NUMBERS)}, averaged=False)
    _trained(alone.for_request(tmp_path), RoundContext(0, 1, clients=4), torch.zeros(NUMBERS), ROW)
    assert not (tmp_path / FILE).exists()


def test_a_training_that_diverged_is_not_kept(tmp_path: Path) -> None:
    own = laid(KEYS[0], OwnershipSettings("unused"), {"w": torch.zeros(NUMBERS)})
    request = own.for_request(tmp_path)
    request.pull({"w": torch.zeros(NUMBERS)}, RoundContext(0, 1, clients=4))
    request.trained({"w": torch.full((NUMBERS,), torch.nan)})
    assert not (tmp_path / FILE).exists()


def test_moves_begin_where_the_first_training_of_a_round_began(tmp_path: Path) -> None:
    start = torch.randn(NUMBERS, generator=torch.Generator().manual_seed(2))
    own = laid(KEYS[0], OwnershipSettings("unused"), {"w": start}).for_request(tmp_path)
    context = RoundContext(0, 1, clients=4)
    end = start
    for _ in range(2):
        end = _trained(own, context, end, ROW)
    [move] = Moves(tmp_path, own.key.commitment).before(2)
    once = replace(own)
    once.pull({"w": start}, context)
    once.trained({"w": end})
    assert Moves(tmp_path, own.key.commitment).before(2) == [move]


def test_a_silo_of_which_little_arrives_pulls_more_strongly_up_to_a_limit(tmp_path: Path) -> None:
    tensor = torch.randn(NUMBERS, generator=torch.Generator().manual_seed(2)).requires_grad_()
    step = torch.randn(NUMBERS, generator=torch.Generator().manual_seed(3))
    own = laid(KEYS[0], OwnershipSettings("unused"), {"w": tensor})
    added = []
    for moves in ([], [Move(1, 0.0, 9.0, 1.0)]):
        for move in moves:
            Moves(tmp_path, KEYS[0].commitment).keep(move)
        tensor.grad = step.clone()
        context = RoundContext(0, 2, clients=4)
        own.for_request(tmp_path).pull({"w": tensor}, context)({"w": tensor}).backward()
        added.append(float((tensor.grad - step).norm() / step.norm()))
    assert added[0] < 0.5 and added[1] == pytest.approx(STRONGEST, rel=0.1)
