"""The method that an experiment describes, and the codecs that do not fit into one."""

from pathlib import Path

import pytest

from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.method import (
    build_method,
    method_remarks,
    refuse_unserved,
    withheld_scores,
)
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.federation.compression.bf16 import BF16
from hanse.federation.compression.identity import Identity
from samples import ROOT

SUMS = ROOT / "tests" / "parts" / "secure_sum.py"
NOISE = ROOT / "tests" / "parts" / "noised_mean.py"
CODEC = ROOT / "examples" / "my_codec.py"  # it takes a change and nothing else

MECHANISM = """
from dataclasses import dataclass

from hanse.federation.compression.identity import Identity
from hanse.federation.interfaces import mechanism


@dataclass(frozen=True)
class Mechanism(Identity, mechanism.Mechanism):
    clip: float = 1.0
"""


def test_the_places_of_codecs_and_mechanism(experiment_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mechanism.py").write_text(MECHANISM)
    method = build_method(
        load(
            experiment_file,
            [
                "compression={upload: [identity, bf16], download: [bf16], error_feedback: true}",
                f"privacy={{{tmp_path}/mechanism.py:Mechanism: {{clip: 2}}}}",
                "clients.silo-2.compression.upload=[bf16]",
                "clients.silo-3.compression.error_feedback=false",
            ],
        )
    )
    upload, download = method.of("silo-1").both
    assert (upload.codecs, upload.error_feedback, upload.owner) == ((Identity(), BF16()), True, "")
    assert (download.codecs, download.mechanisms) == ((BF16(),), ())
    assert download.error_feedback, "it concerns both ways"
    [mechanism] = upload.mechanisms
    assert mechanism.clip == 2
    assert upload.transforms == (mechanism, Identity(), BF16()), "privacy comes first"
    other = method.of("silo-2").upload
    assert (other.codecs, other.error_feedback, other.owner) == ((BF16(),), True, "silo-2")
    assert type(other.mechanisms[0]).__name__ == "Mechanism", "it is common to all"
    assert method.of("silo-2").download.codecs == (BF16(),)
    assert not method.of("silo-3").upload.error_feedback


def test_error_feedback_is_around_codecs_that_lose_something(experiment_file: Path) -> None:
    words = ["compression={upload: [identity, zstd], download: [bf16, zstd], error_feedback: true}"]
    upload, download = build_method(load(experiment_file, words)).pipelines.both
    assert (upload.error_feedback, download.error_feedback) == (False, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            [f"aggregator={SUMS}:SecureSum", "compression=bf16"],
            "SecureSum sees only sums, but BF16 needs each client's update; choose the aggregator "
            "mean, or leave it out of compression.upload.",
        ),
        (
            [f"compression.download=[{CODEC}:Grid]"],
            "Grid takes change, but FedAvg instructs clients by model; leave Grid out of "
            "compression.download.",
        ),
        (
            [f"clients.silo-1.compression.download=[{CODEC}:Grid]"],
            "clients.silo-1: Grid takes change, but FedAvg instructs clients by model",
        ),
        (
            ["compression=[zstd, int8]"],
            "Int8 comes after Zstd, which leaves it no numbers to encode; name Int8 before Zstd in "
            "compression.upload.",
        ),
        (
            ["clients.silo-1.compression=[top_k, int8, bf16]"],
            "clients.silo-1: Int8 and BF16 both round numbers to fewer bits; leave one of them out",
        ),
        (
            ["compression={upload: [{rand_k: {unbiased: true}}], error_feedback: true}"],
            "RandK with these settings loses more than the update itself, and error feedback would "
            "add that up without bound",
        ),
        (
            ["compression={upload: [zstd], download: [identity], error_feedback: true}"],
            "compression.error_feedback is true, but the codecs of compression lose nothing; name "
            "one that does, or set error_feedback: false.",
        ),
        (
            [
                "compression={upload: [bf16], error_feedback: true}",
                "clients.silo-2.compression.upload=[zstd]",
            ],
            "clients.silo-2: compression.error_feedback is true, but the codecs of compression",
        ),
        (
            [
                "compression={upload: [svd, {int8: {rounding: stochastic}}], error_feedback: true}",
            ],
            "SVD sends matrices as products, and Int8 with stochastic rounding may lose more",
        ),
        (
            [f"aggregator={SUMS}:SecureSum", "compression=top_k"],
            "SecureSum sees only sums, but TopK needs each client's update",
        ),
        (
            ["compression.download=[top_k]"],
            "TopK takes change, but FedAvg instructs clients by model; leave TopK out",
        ),
        (
            [f"compression=[{CODEC}:Grid]", "algorithm=hetlora"],
            "Grid takes change, but HetLoRA sends factors; leave Grid out of compression.upload.",
        ),
        (
            [f"privacy={NOISE}:NoisedMean", "algorithm=hetlora"],
            "NoisedMean takes change, but HetLoRA sends factors; leave NoisedMean out of privacy.",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    """By `simulate`, with which hanse run, check and server begin."""
    experiment = load(experiment_file, words)
    monkeypatch.setattr("hanse.experiment.assembly.resources.load", None)  # no model is loaded
    with pytest.raises(UserError) as caught:
        simulate(experiment)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["aggregator={bulyan: {attackers: 1}}"], "bulyan needs at least 7 clients in a round"),
        (["aggregator={krum: {attackers: 1}}"], "krum needs at least 5 clients in a round to"),
        (
            ["aggregator={trimmed_mean: {attackers: 1}}", "fraction_train=0.6"],
            "trimmed_mean needs at least 3 clients in a round to bear 1 attacker, and there are 2",
        ),
        (
            ["aggregator={fltrust: {root: silo-9}}"],
            "aggregator.fltrust.root is 'silo-9', which takes no part (did you mean 'silo-",
        ),
        (
            ["aggregator={fltrust: {root: silo-1}}", "fraction_train=0.6"],
            "fltrust needs an answer of silo-1 in every round, and fraction_train asks only some",
        ),
    ],
)
def test_clients_that_a_rule_cannot_serve_are_refused_before_anything_is_loaded(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    monkeypatch.setattr("hanse.experiment.assembly.resources.load", None)
    with pytest.raises(UserError) as caught:
        simulate(load(experiment_file, words))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["aggregator={krum: {attackers: 2}}", "deployment.quorum=6"],
            "deployment.quorum lets a round end with 6 updates, and krum needs 7 where 10 clients "
            "are asked; raise deployment.quorum, or choose",
        ),
        (["aggregator=coordinate_median", "deployment.quorum=2"], "end with 2 updates, and coord"),
        (
            [
                "aggregator={krum: {attackers: 2}}",
                *("fraction_train=0.6", "deployment.over_selection=1.5"),
            ],
            "a round that asks 9 clients waits for 6 of them (deployment.over_selection), and krum "
            "then needs 7 updates; set deployment.over_selection=1, or raise",
        ),
        (
            ["aggregator=secagg", "fraction_train=0.6", "deployment.over_selection=1.7"],
            "waits for 6 of them (deployment.over_selection), and secagg then needs",
        ),
    ],
)
def test_rounds_that_may_end_with_too_few_updates_are_no_deployment(
    experiment_file: Path, words: list[str], sentence: str
) -> None:
    """Such a round would be paused, and repeated for ever."""
    experiment = load(experiment_file, ["num_clients=10", *words])
    refused = "fraction_train" in words[1]
    if not refused:
        refuse_unserved(experiment, timed=False)
        [remark] = method_remarks(experiment, simulated=True)
        assert remark.startswith("a deployment of this experiment would be refused: ")
        assert sentence in remark
    with pytest.raises(UserError) as caught:
        refuse_unserved(experiment, timed=True)
    assert sentence in str(caught.value)
    enough = [*words, "deployment.quorum=7", "deployment.over_selection=1"]
    refuse_unserved(load(experiment_file, ["num_clients=10", *enough[:1], *enough[-2:]]), True)


def test_scores_that_nobody_is_told_are_remarked_on(experiment_file: Path) -> None:
    def said(*words: str) -> str:
        return "; ".join(withheld_scores(load(experiment_file, words)))

    rule = f"aggregator={SUMS}:SecureSum"
    assert "SecureSum sees only sums, so no client scores the result" in said(rule)
    assert "set data.client_test: 0" in said(rule)
    others = (), (rule, "data.client_test=0"), (rule, "evaluation.clients=false")
    assert [said(*words) for words in others] == ["", "", ""]
    assert said(rule) in simulate(load(experiment_file, [rule])).dataset.remarks


def test_a_probe_says_that_nothing_is_learned(experiment_file: Path) -> None:
    def said(algorithm: str) -> str:
        words = [f"algorithm={algorithm}", "aggregator=mean"]
        return "; ".join(method_remarks(load(experiment_file, words), simulated=True))

    assert "with algorithm.fedpipe.probe the model stays as it is" in said(
        "{fedpipe: {probe: true}}"
    )
    assert "stays as it is" not in said("fedpipe") + said("fedavg")


def test_a_deployment_keeps_the_survivors_that_noise_is_made_for() -> None:
    """With 11 silos the noise of 7 survivors is counted, less that of two colluders."""
    parts = {"aggregator": "secagg", "privacy": "distributed_gaussian", "num_clients": 11}
    for quorum in (11, 7):
        enough = {**parts, "deployment": {"quorum": quorum}}
        refuse_unserved(Experiment.model_validate(enough), timed=True)
    few = Experiment.model_validate({**parts, "deployment": {"quorum": 6}})
    refuse_unserved(few, timed=False)
    with pytest.raises(UserError, match="with 6 updates, and secagg needs 7 where"):
        refuse_unserved(few, timed=True)


def test_trials_that_do_not_follow_the_seconds_of_devices_say_so(experiment_file: Path) -> None:
    def said(*words: str) -> str:
        return "; ".join(method_remarks(load(experiment_file, words), simulated=True))

    remark = "fedadapter ends its trials by step_seconds, layer_seconds and rate of its own"
    assert remark in said("algorithm=fedadapter", "device=t4")
    assert remark not in said("algorithm=fedadapter") + said("device=t4")


@pytest.mark.parametrize(("rounds", "said"), [(1, False), (4, True)])
def test_a_probe_that_times_links_says_that_its_first_round_is_unlike_the_others(
    experiment_file: Path, rounds: int, said: bool
) -> None:
    words = ["algorithm={fedpipe: {probe: true}}", f"rounds={rounds}"]
    remarks = "; ".join(method_remarks(load(experiment_file, words), simulated=True))
    assert ("rounds of fedpipe after the first train nothing" in remarks) == said
    assert "has learned nothing" in remarks
