"""Secure sums with every algorithm and codec: refused with a way out, or the same as with means."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import torch

from contract.cases import CASES, Case, built, every_algorithm
from contract.test_codecs import FOLDER, build
from hanse import registry
from hanse.errors import UserError
from hanse.federation.aggregators.mean import Mean
from hanse.federation.aggregators.secagg import SecAgg
from hanse.federation.compatibility.parts import check
from hanse.federation.interfaces.aggregator import Aggregator, Exchange
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.declarations import EVERYTHING
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.interfaces.transform import Transform
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.federation.secure_sums.grid import Grid
from hanse.tensors.named import Tensors, map_tensors
from toys import Outcome, federate, held_out, same, silos

# Codecs with settings that leave a toy's few numbers something to encode.
SETTINGS: dict[str, dict[str, Any]] = {"rand_k": {"share": 0.5}, "powersgd": {"rank": 1}}
# Fewer seeds than the default, which all are replayed in each round.
ALGORITHMS = [
    Case(case.name, {"seeds": 16, "epsilon": 0.01}) if case.name == "fedkseed_sums" else case
    for case in CASES
]
# Grids whose steps are seen among the roundings of float32, and the default one.
COARSE, WIDE, FINE = SecAgg(bits=16, clip=0.5), SecAgg(bits=16), SecAgg()
SMALL = ("fedsa_lora", "rolora")  # whose updates a wide grid would leave little of


class Upload(NamedTuple):
    """A list of one codec, with or without error feedback."""

    codec: str
    feedback: bool

    def pipelines(self) -> Pipelines:
        return Pipelines(Pipeline("upload", (codec(self.codec),), (), self.feedback))


@cache
def codec(name: str) -> Transform:
    """A codec of the package."""
    return registry.build(FOLDER, {name: SETTINGS[name]}) if name in SETTINGS else build(name)


def sentence(algorithm: Algorithm, rule: Aggregator, upload: Pipelines) -> str:
    """The reason why these parts are refused; empty if they are not."""
    try:
        check(algorithm, rule, upload)
    except UserError as error:
        return str(error)
    return ""


UPLOADS = [Upload(name, on) for name in registry.names(FOLDER) for on in (False, True)]
LINEAR = [upload for upload in UPLOADS if codec(upload.codec).linear]
WORKING = [
    (case, upload)
    for case in ALGORITHMS
    for upload in LINEAR
    if not sentence(built(case), FINE, upload.pipelines())
    # Codecs with error feedback for all algorithms; without it the rule adds up as much or less.
    and (upload.feedback != codec(upload.codec).lossless or case.name == "fedavg")
]
# The tensors of its updates alternate, and rand_k's places are those of all tensors.
ALTERNATING = {("rolora", "rand_k")}

Parts = tuple[Algorithm, Aggregator, Pipelines]


def ways_out(said: str, case: Case, upload: Upload) -> Iterator[Parts]:
    """The parts that a refusal advises to choose."""
    algorithm, pipelines, none = built(case), upload.pipelines(), Pipelines()
    if type(codec(upload.codec)).__name__ not in said:
        pipelines = none  # the codec may be wrong for a reason of its own
    if "the aggregator mean" in said:
        yield algorithm, Mean(), pipelines
    if named := re.search(r"or the algorithm (\w+)\.$", said):
        yield registry.build("federation/algorithms", named[1]), FINE, none
    if "settings with which all get the same" in said:
        yield built(Case(case.name, {})), FINE, none
    if "leave it out of compression.upload" in said:
        yield algorithm, FINE, none
    if named := re.search(r"name ((?:\w+ or )*\w+) in its place in compression\.upload", said):
        for name in named[1].split(" or "):
            yield algorithm, FINE, Upload(name, upload.feedback).pipelines()
    if named := re.search(r"set aggregator\.secagg\.(\w+) in its place", said):
        yield algorithm, replace(FINE, **{named[1]: 16}), none


@every_algorithm
def test_a_refusal_names_a_way_out_that_works(case: Case) -> None:
    for upload in UPLOADS:
        said = sentence(built(case), FINE, upload.pipelines())
        assert said or codec(upload.codec).linear
        if said:
            assert said.endswith(".") and ". " not in said
            ways = [*ways_out(said, case, upload)]
            assert ways and not [*filter(None, (sentence(*parts) for parts in ways))], said


@dataclass(frozen=True)
class Moved(Mean):
    """A mean each of whose numbers is moved, up or down at random, as far as secure sums may.

    Each client's word is rounded by half a step at most, and the sum of the words is divided by the
    sum of the weights. A codec's product with rows of a basis of rank 1 makes that no larger. A
    number of float32 is rounded once more at each side.
    """

    gives: ClassVar[frozenset[str]] = EVERYTHING
    rule: SecAgg = FINE

    def aggregate(self, exchange: Exchange) -> Aggregate:
        plain, clients = super().aggregate(exchange), len(exchange.profiles)
        bound = exchange.weight_bound()
        step = Grid(clients, self.rule.bits, self.rule.clip, bound).step * bound
        largest = clients * step / 2 / plain.weight
        draw = torch.Generator().manual_seed(exchange.round)

        def moved(number: torch.Tensor) -> torch.Tensor:
            signs = torch.randint(0, 2, number.shape, generator=draw) * 2 - 1
            return number + signs * (largest + 2**-22 * number.abs())

        return replace(plain, tensors=map_tensors(moved, plain.tensors))


def go(folder: Path, case: Case, upload: Upload, rule: Aggregator, **more: Any) -> Outcome:
    """Two rounds of four clients, or those that are left of a run that was stopped."""
    own, codecs = case.adapter, [codec(upload.codec)]
    settings = {
        "upload": codecs,
        "error_feedback": upload.feedback,
        "aggregator": rule,
        "rounds": 2,
        **more,
    }
    return federate(built(case), silos(4, **own), folder, held_out(**own), **settings)


def model(outcome: Outcome) -> Tensors:
    return outcome.run.method.algorithm.model(outcome.server_state.algorithm_state)


def distance(a: Outcome, b: Outcome) -> float:
    """The largest difference of two runs' models."""
    left, right = model(a), model(b)
    assert left.keys() == right.keys()
    return max(float((left[name].double() - right[name].double()).abs().max()) for name in left)


def label(part: Any) -> str:
    """A case or an upload as a part of a test's name."""
    texts = [part.name, *part.settings.values()] if isinstance(part, Case) else part
    return "-".join(map(str, texts))


@pytest.mark.parametrize(("case", "upload"), WORKING, ids=label)
def test_secure_sums_give_the_model_of_means(case: Case, upload: Upload, tmp_path: Path) -> None:
    coarse = COARSE if case.name in SMALL else WIDE
    rule = FINE if upload.codec == "identity" else coarse
    if (case.name, upload.codec) in ALTERNATING:
        with pytest.raises(UserError, match=r"algorithm sends others in this .* name powersgd in"):
            go(tmp_path / "run", case, upload, rule)
        return
    summed = go(tmp_path / "summed", case, upload, rule)
    plain = go(tmp_path / "plain", case, upload, Mean())
    moved = go(tmp_path / "moved", case, upload, Moved(rule=rule))
    ulp = 2**-23 * max(float(tensor.abs().max()) for tensor in model(plain).values())
    assert distance(summed, plain) <= distance(moved, plain) + ulp
    for own, other in zip(summed.records[1:], plain.records[1:], strict=True):
        assert (own.clients, own.weight) == (other.clients, other.weight)
        assert own.train.pop("clipped") == 0
    first, known = summed.records[1].train, plain.records[1].train  # of the same trainings
    for name in ("loss", *built(case).numbers):
        assert first[name] == pytest.approx(known[name])


@pytest.mark.parametrize("name", sorted({case.name for case, _ in WORKING}))
def test_a_resumed_run_of_secure_sums_is_the_same(name: str, tmp_path: Path) -> None:
    case = next(case for case, _ in WORKING if case.name == name)
    upload = Upload("powersgd" if (name, "rand_k") in ALTERNATING else "rand_k", feedback=True)
    whole = go(tmp_path / "whole", case, upload, FINE)
    go(tmp_path / "parts", case, upload, FINE, stop_after=1)
    resumed = go(tmp_path / "parts", case, upload, FINE)
    assert same(whole.server_state, resumed.server_state)
    assert [r.train for r in whole.records] == [r.train for r in resumed.records]
