"""Every algorithm under every aggregator: refused before anybody is asked, or a run that works."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from collected_rounds import SETTINGS
from contract.cases import Case, built, every_algorithm
from hanse import registry
from hanse.errors import UserError
from hanse.experiment.part_kinds import ALGORITHM
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.diloco import DiLoCo
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fedkseed import FedKSeed
from hanse.federation.algorithms.fedkseed_sums import FedKSeedSums
from hanse.federation.algorithms.fednova import FedNova
from hanse.federation.algorithms.hetlora import HetLoRA
from hanse.federation.compatibility.parts import check
from hanse.federation.compression.bf16 import BF16
from hanse.federation.compression.fp16 import FP16
from hanse.federation.compression.int8 import Int8
from hanse.federation.compression.sign import Sign
from hanse.federation.compression.top_k import TopK
from hanse.federation.compression.zstd import Zstd
from hanse.federation.interfaces.aggregator import Aggregator, Exchange
from hanse.federation.interfaces.algorithm import Algorithm, Server
from hanse.federation.interfaces.declarations import MEAN, NUMBERS
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.interfaces.results import Aggregate, Memory, State
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Reply, Update
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.journal.run_folder import read_ledger
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors, largest, scale
from parts.compared_requests import ComparedRequests
from parts.plain_rules import Median, Sums
from toys import Meddler, Outcome, federate, held_out, silos


class SumsOfNumbers(Sums):
    """The same, with the numbers that the algorithm declares."""

    gives: ClassVar[frozenset[str]] = frozenset({MEAN, NUMBERS})

    def aggregate(self, exchange: Exchange) -> Aggregate:
        return super().aggregate(exchange)


RULES: dict[str, Aggregator] = {
    **{
        name: registry.build("federation/aggregators", {name: SETTINGS.get(name, {})})
        for name in registry.names("federation/aggregators")
    },
    "sums": Sums(),
    "sums_of_numbers": SumsOfNumbers(),
    "median": Median(),
}


def run(case: Case, rule: Aggregator, folder: Path, taps: list[Meddler]) -> Outcome:
    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[-1]

    own = case.adapter
    return federate(
        built(case),
        silos(4, **own),
        folder,
        held_out(**own),
        rounds=2,
        aggregator=rule,
        network=tapped,
    )


def refused(case: Case, rule: Aggregator) -> bool:
    try:
        check(built(case), rule)
    except UserError:
        return True
    return False


@pytest.mark.parametrize("name", RULES)
@every_algorithm
def test_a_combination_is_refused_or_works(case: Case, name: str, tmp_path: Path) -> None:
    taps: list[Meddler] = []
    if refused(case, RULES[name]):
        assert name != "mean" and case.name != "fedavg"
        assert (case.name, name) != ("fednova", "sums_of_numbers")
        with pytest.raises(
            UserError, match=r"choose .*the aggregator (mean|geometric_median|krum)"
        ):
            run(case, RULES[name], tmp_path / "run", taps)
        assert not any(tap.requests for tap in taps)
        return
    outcome = run(case, RULES[name], tmp_path / "run", taps)
    read = [len(record.clients) + len(record.excluded) for record in outcome.records]
    assert read == [0, 4, 4] and all(record.clients for record in outcome.records[1:])
    algorithm = outcome.run.method.algorithm
    model = algorithm.model(outcome.server_state.algorithm_state)
    assert all(bool(tensor.isfinite().all()) for tensor in model.values())
    if RULES[name].sums_only:  # sums of updates come to what the mean of them does
        plain = run(case, Mean(), tmp_path / "plain", taps)
        for key, tensor in algorithm.model(plain.server_state.algorithm_state).items():
            torch.testing.assert_close(model[key], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rule", [Sums(), Median()])
@pytest.mark.parametrize("name", ["fednova", "flexlora", "flora", "fedex_lora", "hetlora"])
def test_what_needs_more_than_a_rule_gives_is_refused(name: str, rule: Aggregator) -> None:
    with pytest.raises(
        UserError, match=r"needs .*; choose the aggregator mean, or (another|the) algo"
    ):
        check(registry.build("federation/algorithms", name), rule)


@dataclass(frozen=True)
class Weighing(FedAvg):
    """Has a step of its own that looks at a number, and does not say so."""

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        change = scale(combined.tensors, 1 / combined.numbers["loss"])
        return super().step(state, replace(combined, tensors=change), server)


@pytest.mark.parametrize("rule", [Sums(), Median()])
def test_an_algorithm_that_declares_nothing_is_taken_to_need_everything(rule: Aggregator) -> None:
    check(Weighing(), Mean())
    check(FedAvg(), rule)
    with pytest.raises(UserError, match="or declare what Weighing needs, if it is less"):
        check(Weighing(), rule)


class Tripled(Mean):
    """A rule of its own below one that gives everything."""

    def aggregate(self, exchange: Exchange) -> Aggregate:
        return super().aggregate(exchange)


def test_an_aggregator_that_declares_nothing_gives_nothing() -> None:
    with pytest.raises(UserError, match=r"FedNova needs .*, which Tripled does not give"):
        check(FedNova(), Tripled())


class Halved(Transform):
    """Linear, and says so."""

    linear: ClassVar[bool] = True

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        return replace(update, tensors=scale(update.tensors, 0.5))

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        return replace(update, tensors=scale(update.tensors, 2.0))


class Rounded(Halved):
    """Encodes otherwise, and does not say how."""

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        rounded = {name: tensor.round() for name, tensor in update.tensors.items()}
        return replace(update, tensors=rounded)


def test_a_transform_that_declares_nothing_is_not_linear() -> None:
    check(FedAvg(), Sums(), coded(Halved()))
    with pytest.raises(UserError, match="Sums sees only sums, but Rounded needs each client's"):
        check(FedAvg(), Sums(), coded(Rounded()))


class Narrow(Halved):
    """Sends bfloat16."""

    linear: ClassVar[bool] = True

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        return {n: torch.empty_like(largest(t), dtype=torch.bfloat16) for n, t in expected.items()}

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        return replace(update, tensors={n: t.bfloat16() for n, t in update.tensors.items()})

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        return replace(update, tensors={n: t.float() for n, t in update.tensors.items()})


@pytest.mark.parametrize("codec", [Halved(), Narrow()])
def test_a_mean_of_codes_is_decoded_without_another_loss(codec: Transform, tmp_path: Path) -> None:
    """Sums of bfloat16 codes are exact, and so is the mean that is decoded."""
    models = []
    for rule in (Mean(), Sums()):
        folder = tmp_path / type(rule).__name__
        settings = {"upload": [codec], "aggregator": rule, "rounds": 1}
        outcome = federate(FedAvg(), silos(3), folder, held_out(), **settings)
        models.append(outcome.server_state.algorithm_state["model"])
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, atol=1e-7, rtol=1e-6)


def coded(*codecs: Transform) -> Pipelines:
    """Pipelines with these codecs on the upload."""
    return Pipelines(Pipeline("upload", codecs))


class Sharing(Halved, Mechanism):
    """Draws a share of noise, and none that would protect a single update."""

    linear: ClassVar[bool] = True
    noise: ClassVar[frozenset[str]] = frozenset({"share"})


def test_shares_of_noise_need_a_rule_that_sees_sums_only() -> None:
    pipelines = Pipelines(Pipeline("upload", mechanisms=(Sharing(),)))
    with pytest.raises(UserError, match=r"Sharing .* protects only sums .*, and Mean sees each"):
        check(FedAvg(), Mean(), pipelines)
    check(FedAvg(), Sums(), pipelines)


def test_sums_need_the_same_codecs_at_all_clients() -> None:
    check(FedAvg(), Sums(), coded(), {"c1": coded()})
    check(FedAvg(), Mean(), coded(), {"c1": coded(Halved())})
    with pytest.raises(UserError, match=r"clients\.c1: Sums adds the clients' updates up"):
        check(FedAvg(), Sums(), coded(), {"c1": coded(Halved())})


class Rounding(Sums):
    """Rounds numbers itself."""

    rounds_by: ClassVar[str] = "aggregator.rounding.bits"
    gives: ClassVar[frozenset[str]] = Sums.gives


def test_a_rule_that_rounds_names_its_setting_in_place_of_a_codec() -> None:
    for codec in (Int8(), BF16(), FP16(), Sign()):
        with pytest.raises(UserError, match=r"upload, and set aggregator\.rounding\.bits in its"):
            check(FedAvg(), Rounding(), coded(codec))
    with pytest.raises(UserError, match=r"Zstd .*; choose the aggregator mean, or leave it out"):
        check(FedAvg(), Rounding(), coded(Zstd()))
    with pytest.raises(UserError, match=r"Int8 .*; choose the aggregator mean, or leave it out"):
        check(FedAvg(), Sums(), coded(Int8()))


def test_a_rule_that_sees_sums_names_the_codecs_of_the_stage_that_are_linear() -> None:
    folder = "federation/compression"
    found = {name: registry.find(folder, name) for name in registry.names(folder)}
    linear = {n for n, part in found.items() if (part.linear, part.stage) == (True, "reduce")}  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="TopK needs each client's update") as caught:
        check(FedAvg(), Sums(), coded(TopK()))
    named = re.search(r", or name (.*) in its place in compression\.upload\.", str(caught.value))
    assert named and {*named[1].split(" or ")} == linear == {"rand_k", "powersgd"}
    for name in linear:
        check(FedAvg(), Sums(), coded(registry.build(folder, name)))
    own = {"c1": coded(TopK())}  # another codec at one client alone is no way out
    with pytest.raises(UserError, match=r"clients\.c1: .* or leave it out of compression\.upload"):
        check(FedAvg(), Sums(), coded(), own)


def test_an_algorithm_names_the_one_that_runs_by_sums() -> None:
    with pytest.raises(UserError, match="choose the aggregator mean, or the algorithm fedkseed_su"):
        check(FedKSeed(), Sums())
    check(FedKSeedSums(), Sums())
    for exact in ("flexlora", "flora", "fedex_lora", "lora_fair"):
        with pytest.raises(
            UserError, match="choose the aggregator mean, or the algorithm ffa_lora"
        ):
            check(ALGORITHM.build(exact), Sums())
    for name in ALGORITHM.names():
        form = ALGORITHM.find(name).for_sums  # type: ignore[attr-defined]
        if form:
            assert not ALGORITHM.find(form)().combines  # type: ignore[attr-defined]


class Comparing(Mean):
    """Compares requests, and gives all that the mean does."""

    agrees: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("algorithm", "said"),
    [
        (HetLoRA(), "with the adapters of clients HetLoRA may send each of them another one"),
        (DiLoCo(fragments=2), r"with diloco\.fragments above 1 DiLoCo may send"),
    ],
)
def test_clients_compare_requests_that_are_alike_only(algorithm: Algorithm, said: str) -> None:
    rule = ComparedRequests()
    check(DiLoCo(), rule, coded(Int8()))
    with pytest.raises(UserError, match=said):
        check(algorithm, Comparing())
    own = Pipelines(download=Pipeline("download", (Int8(),), owner="c1"))
    with pytest.raises(UserError, match=r"clients\.c1: ComparedRequests lets clients compare"):
        check(FedAvg(), rule, coded(), {"c1": own})


def test_a_download_takes_what_instructions_contain() -> None:
    download = Pipelines(download=Pipeline("download", (Halved(),)))
    with pytest.raises(UserError, match="takes change, but FedAvg instructs clients by model"):
        check(FedAvg(), Mean(), download)


def test_a_client_that_withholds_a_needed_number_is_not_counted(tmp_path: Path) -> None:
    def withheld(reply: Reply) -> Reply:
        if reply.client != "c1" or reply.kind != "train":
            return reply
        numbers = {n: v for n, v in reply.update.numbers.items() if n != "sum_a"}
        return replace(reply, update=replace(reply.update, numbers=numbers))

    outcome = federate(
        FedNova(),
        silos(3),
        tmp_path / "run",
        held_out(),
        rounds=1,
        network=lambda inner: Meddler(inner, changed=withheld),
    )
    assert outcome.records[-1].clients == ("c0", "c2")
    errors = [row.error for row in read_ledger(tmp_path / "run") if row.error]
    assert errors == ["the number sum_a is missing, which the algorithm needs"]
