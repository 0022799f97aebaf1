"""Choices of silos from scores and measured steps, without any model."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hanse.learners.training.settings import TrainingSettings
from hanse.planning.fedpipe import choices, program
from hanse.planning.fedpipe.choices import Matrix, Means, Precision
from hanse.planning.fedpipe.cost_model import CostModel, StepSetting
from hanse.planning.fedpipe.problem import memory, seconds
from hanse.planning.fedpipe.silos import Machine, Silo, machines
from hanse.planning.fedpipe.solution import solved
from hanse.planning.fedpipe.step_probes import StepModel
from machine_profiles import PROFILE

LAYERS, RANK = 8, 8
COST = CostModel(np.array([0.01, 1e-4, 4e-5, 1e-7, 1e-6, 1e-8]), 0.05)
STEPS = StepModel(COST, 8, np.array([1e4, 4e4, 10.0, 20.0]), 1.5)
USUAL = Precision("", 1e9, 1.0, 0.0)
MATRICES = [
    Matrix(f"layers.{n}.{m}", 1024, (n + 1) * (1 + (m == "v")) / 108, LAYERS - n)
    for n in range(LAYERS)
    for m in "qv"
]
TRAIN = TrainingSettings(per_device_train_batch_size=8, num_train_epochs=0.5)


def silo(name: str, slower: float = 1.0, memory: float = 8e9, **more: object) -> Silo:
    machine = Machine(memory, slower, "this machine")
    return replace(Silo(name, 800, 60, 120, TRAIN, machine), **more)  # type: ignore[arg-type]


def means(*precisions: Precision, bounded: bool = True) -> Means:
    shares = choices.SHARES if bounded else (1.0,)
    return Means(MATRICES, STEPS, precisions or (USUAL,), RANK, LAYERS, shares)


def test_without_bounds_every_silo_trains_all_rows_and_the_matrices_that_matter() -> None:
    silos, options = [silo("a"), silo("b", 2.0)], means(bounded=False)
    bound = 1.02 * max(choices.usual_seconds(s, options) for s in silos)
    problem = choices.problem(silos, options, bound)
    assert sum(m.score for m in MATRICES) == pytest.approx(1)
    kept = sorted((m.score for m in MATRICES), reverse=True)[: problem.most]
    assert sum(kept) >= choices.KEPT > sum(kept[:-1])
    found = program.best(problem)
    assert found is not None
    for options_of, plan in zip(problem.silos, found.silos, strict=True):
        ranks = [place for place in plan.ranks if place is not None]
        assert len(ranks) == problem.most
        assert all(options_of.ranks[0][place].name == "rank 8" for place in ranks)
        assert "% of the rows" not in options_of.forms[plan.form].name


@pytest.mark.parametrize("bound", [1e3, 1e9, 1e300])
def test_a_generous_bound_makes_no_round_longer_than_it_need_be(bound: float) -> None:
    problem = choices.problem([silo("a"), silo("b", 2.0)], means(), bound)
    found, _ = solved(problem)
    for options, plan in zip(problem.silos, found.silos, strict=True):
        taken = options.forms[plan.form]
        rest = [own for own in options.forms if own.depth == LAYERS and "%" not in own.name]
        assert taken.depth == LAYERS and taken.seconds == min(own.seconds for own in rest)


def test_slow_silos_end_a_round_with_the_fast_one() -> None:
    """Speeds of 1 : 2 : 4 with a bound that the fastest just meets by itself."""
    silos, options = [silo("a"), silo("b", 2.0), silo("c", 4.0)], means()
    usual = [choices.usual_seconds(s, options) for s in silos]
    assert max(usual) / min(usual) >= 3
    problem = choices.problem(silos, options, 1.01 * min(usual))
    found = program.best(problem)
    assert found is not None
    taken = [seconds(s, p) for s, p in zip(problem.silos, found.silos, strict=True)]
    assert max(taken) / min(taken) <= 1.3 and max(taken) <= 1.01 * min(usual)


def test_all_choices_together_take_what_the_usual_settings_do() -> None:
    one, options = silo("a", 2.0, rates=(1e6, 2e6)), means(bounded=False)
    problem = choices.problem([one], options, 100.0)
    forms = choices.forms(one, options)
    usual = next(n for n, f in enumerate(forms) if (f.rows, f.depth) == (8, LAYERS))
    largest = [ranks[-1] for ranks in problem.silos[0].ranks]
    total = problem.silos[0].forms[usual].seconds + sum(choice.seconds for choice in largest)
    assert total == pytest.approx(choices.usual_seconds(one, options))
    step = COST.seconds(StepSetting(8, 60, RANK, LAYERS))
    sent = 4 * RANK * sum(matrix.size for matrix in MATRICES)
    assert total == pytest.approx(2 * 50 * step + sent / 1e6 + sent / 2e6)


def test_fewer_bits_are_taken_by_silos_that_need_them_alone() -> None:
    nf4 = Precision("nf4", 4e8, 1.3, 0.05)
    silos, options = [silo("a"), silo("b", memory=8e8)], means(USUAL, nf4, bounded=False)
    problem = choices.problem(silos, options, 100.0)
    found = program.best(problem)
    assert found is not None
    names = [choices.forms(s, options)[p.form].precision.name for s, p in zip(silos, found.silos)]  # noqa: B905
    assert names == ["", "nf4"]
    assert memory(problem.silos[1], found.silos[1]) <= 8e8


def test_fewer_bits_are_taken_by_a_silo_whose_packed_batches_need_them() -> None:
    packing = TrainingSettings(per_device_train_batch_size=8, packing=True)
    options = means(USUAL, Precision("nf4", 4e8, 1.3, 0.05), bounded=False)
    one = silo("a", memory=USUAL.memory + STEPS.bytes(StepSetting(4, 120, 0, LAYERS)))
    assert {form.precision.name for form in choices.forms(one, options)} == {""}
    packed = replace(one, train=packing)
    assert {(f.precision.name, f.rows) for f in choices.forms(packed, options)} == {
        ("", 8),
        ("nf4", 8),
    }


def test_a_silo_with_memory_keeps_its_bits_even_if_others_are_faster() -> None:
    one, options = silo("a"), means(USUAL, Precision("int8", 4e8, 0.5, 0.02))
    problem = choices.problem([one], options, 0.6 * choices.usual_seconds(one, options))
    found = program.best(problem)
    assert found is not None
    form = choices.forms(one, options)[found.silos[0].form]
    assert form.precision.name == "" and form.share < 1


def test_rows_of_an_optimizer_step_stay_and_a_share_shortens_a_round() -> None:
    one = silo("a", train=TrainingSettings(per_device_train_batch_size=6, max_steps=10))
    assert {form.rows for form in choices.forms(one, means())} == {1, 2, 3, 6}
    assert one.shorter(0.25).max_steps == 2 and one.shorter(1.0) is one.train
    assert one.batches(2, 0.5) == 5 * 3
    assert silo("a").shorter(0.25).num_train_epochs == 0.125


def test_packed_rows_have_all_tokens_and_some_are_full() -> None:
    packed = silo("a").packed(100, 512)
    assert (packed.rows, packed.mean, packed.longest) == (100, 480, 512)
    few = replace(silo("a"), rows=2).packed(1, 512)
    assert (few.rows, few.mean, few.longest) == (1, 120, 120)


def test_gains_are_those_that_are_documented() -> None:
    option = choices.problem([silo("a")], means(), 10.0).silos[0]
    assert option.ranks[0][-1].gain == pytest.approx(MATRICES[0].score)
    assert option.ranks[0][0].gain == pytest.approx(MATRICES[0].score * math.log(3) / math.log(9))


def test_the_memory_of_a_device_is_its_training_and_not_this_process() -> None:
    steps = replace(STEPS, devices={"small": COST})
    both = replace(means(), steps=steps, around=7e8)  # beside weights of 0.3 GB
    here = silo("a")
    there = replace(here, machine=replace(here.machine, device="small"))
    usual, device = (choices.problem([own], both, 10.0).silos[0].forms for own in (here, there))
    for first, second in zip(usual, device, strict=True):
        assert first.memory - 1e9 == pytest.approx(second.memory - (3e8 + choices.RUNTIME))


def test_machines_are_compared_by_their_peaks_and_the_users_bound_wins() -> None:
    here = Machine(8e9, 1.0, "this machine")
    fast = replace(PROFILE, float32=4e11, bfloat16=4e11)
    found = machines(["a", "b", "c"], here, PROFILE, {"b": fast}, {"": 4e9, "c": 1e9}, bf16=False)
    assert (found["a"].memory, found["c"].memory) == (4e9, 1e9)
    assert found["b"].slower == 0.25 and "float32" in found["b"].source
    assert machines(["b"], here, PROFILE, {"b": fast}, {}, bf16=True)["b"].slower == 0.5
