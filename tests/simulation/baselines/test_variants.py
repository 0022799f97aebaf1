"""Which runs a baseline comparison has, and that each is what it is called."""

import math
from pathlib import Path

import pytest

from hanse.errors import UserError
from hanse.experiment.assembly import in_place
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.simulation.baselines.variants import Variant, refuse, variants

SIZES = {"silo-1": 50, "silo-2": 30, "silo-3": 10}


def _by_name(file: Path, *words: str) -> dict[str, Variant]:
    return {
        variant.name: variant for variant in variants(load(file, words), SIZES, 5, Path("home"))
    }


def test_a_ladder_has_every_rung_with_its_steps(experiment_file: Path) -> None:
    found = _by_name(experiment_file, "train.per_device_train_batch_size=4", "algorithm=fedprox")
    silos = [f"alone-silo-{n}" for n in (1, 2, 3)]
    longer = [f"{name}-longer" for name in silos]
    assert list(found) == [
        *("federated", *silos, *longer),
        *("centralised", "centralised-small-batch"),
    ]
    # 3 rounds of 3 steps at 3 silos
    for names, steps, micro in (
        (silos, 3, 1),
        (longer, 9, 1),
        (["centralised"], 3, 3),
        (["centralised-small-batch"], 9, 1),
    ):
        for name in names:
            settings = found[name].experiment
            assert (settings.rounds, settings.train.max_steps) == (3, steps)
            assert settings.train.gradient_accumulation_steps == micro
            assert settings.train.per_device_train_batch_size == 4
            assert settings.algorithm == "fedavg", "alone, there is nothing to combine"
            assert settings.evaluation.test == "final"
            assert settings.data.pooled == name.startswith("centralised")
    assert found["federated"].experiment.rounds == 3
    assert "fedprox" in found["federated"].experiment.algorithm
    assert found["federated"].experiment.evaluation.test is True
    assert found["alone-silo-2"].experiment.participants == ["silo-2"]
    for name, variant in found.items():
        assert variant.experiment.seed == 5
        assert variant.experiment.output_dir == f"home/{name}"


def test_without_an_adapter_every_run_changes_the_weights_in_the_same_way(
    experiment_file: Path,
) -> None:
    words = ["algorithm={fedkseed: {seeds: 8}}", "adapter=none", "train.optim=sgd"]
    for variant in _by_name(experiment_file, *words).values():
        in_place.refuse_unfit(variant.experiment)
        assert variant.experiment.algorithm["fedkseed"]["seeds"] == 8


def test_a_client_alone_trains_its_own_model(
    experiment_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [
        "clients.silo-2.model.model_name_or_path=other",
        "clients.silo-2.adapter={lora: {r: 2}}",
    ]
    found = _by_name(experiment_file, "algorithm=feddistill", "data.public=public.jsonl", *words)
    for name, variant in found.items():
        experiment, own = variant.experiment, variant.experiment.for_client("silo-2")
        if name.startswith("alone-silo-2"):
            assert experiment.model.model_name_or_path == "other"
            assert (experiment.adapter.lora.r, own.adapter.lora.r) == (2, 2)
        else:
            assert experiment.model.model_name_or_path != "other"
    federated = found["federated"].experiment
    assert federated.for_client("silo-2").model.model_name_or_path == "other"
    assert "its own model (silo-2 other)" in caplog.text


def test_a_client_alone_trains_the_mentor_that_it_would_keep(
    experiment_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [
        "algorithm=fedkd",
        "models={mentor: {model_name_or_path: large, adapter: {lora: {r: 3}}}}",
        "clients.silo-2.models.mentor.model_name_or_path=larger",
    ]
    found = _by_name(experiment_file, *words)
    trained = {
        name: Path(variant.experiment.model.model_name_or_path).name
        for name, variant in found.items()
    }
    assert (trained["alone-silo-1"], trained["alone-silo-2-longer"]) == ("large", "larger")
    assert found["alone-silo-1"].experiment.adapter.lora.r == 3
    assert not {"large", "larger"} & {trained["federated"], trained["centralised"]}
    assert "models.mentor, which it would keep" in caplog.text


def test_where_nothing_travels_nothing_is_encoded(experiment_file: Path) -> None:
    words = ["compression={upload: [bf16], error_feedback: true}"]
    words += ["clients.silo-2.compression=identity"]
    found = _by_name(experiment_file, *words)
    federated = found.pop("federated").experiment
    assert federated.compression.upload == [{"bf16": {}}]
    assert federated.for_client("silo-2").compression.upload == ["identity"]
    for variant in found.values():
        experiment = variant.experiment
        for client in (experiment, experiment.for_client("silo-2")):
            assert client.compression.upload == [] and not client.compression.error_feedback


def test_where_a_round_is_a_pass_as_many_examples_are_seen(experiment_file: Path) -> None:
    found = _by_name(experiment_file, "train.max_steps=null", "train.num_train_epochs=0.5")
    federated = {"silo-1": 25, "silo-2": 15, "silo-3": 5}  # in each round
    total = sum(federated.values())
    seen = {
        n: r.experiment.train.examples_per_round(SIZES.get(r.client or "", 90))
        for n, r in found.items()
    }
    for silo, examples in federated.items():
        assert seen[f"alone-{silo}"] == examples
        assert seen[f"alone-{silo}-longer"] == total
    assert seen["centralised"] == seen["centralised-small-batch"] == total
    joint, small = (found[n].experiment.train for n in ("centralised", "centralised-small-batch"))
    assert (joint.batch, small.batch) == (3 * 8, 8)
    assert (joint.steps(90), small.steps(90)) == (math.ceil(total / 24), math.ceil(total / 8))


def test_where_some_silos_take_part_in_a_round_they_count(experiment_file: Path) -> None:
    found = _by_name(experiment_file, "fraction_train=0.67")  # 2 of 3
    assert found["alone-silo-1"].experiment.train.max_steps == 3
    assert found["alone-silo-1-longer"].experiment.train.max_steps == 6
    assert found["centralised"].experiment.train.max_steps == 3
    assert found["centralised"].experiment.train.gradient_accumulation_steps == 2
    assert found["centralised-small-batch"].experiment.train.max_steps == 6


def test_a_silo_alone_keeps_its_own_settings(experiment_file: Path) -> None:
    text = experiment_file.read_text()
    own = "{max_steps: 1, per_device_train_batch_size: 2}"
    experiment_file.write_text(text + f"clients: {{silo-2: {{train: {own}}}}}\n")
    found = _by_name(experiment_file)
    alone = found["alone-silo-2"].experiment.for_client("silo-2").train
    assert (alone.max_steps, alone.per_device_train_batch_size) == (1, 2)
    together = 3 * 8 + 1 * 2 + 3 * 8
    longer = found["alone-silo-2-longer"].experiment.for_client("silo-2").train
    assert longer.max_steps == together / 2
    assert found["alone-silo-1"].experiment.train.max_steps == 3


def test_participants_hold_the_rows_that_they_hold_in_the_federation(experiment_file: Path) -> None:
    together = simulate(load(experiment_file))
    some = simulate(load(experiment_file, ["participants=[silo-3, silo-1]"]))
    assert list(some.clients) == ["silo-1", "silo-3"]
    held = [(some.learner.splits, together.learner.splits)]
    held += [
        (silo.examples, together.clients[name].examples) for name, silo in some.clients.items()
    ]
    for found, wanted in held:
        assert {split: list(found[split]) for split in found} == {
            split: list(wanted[split]) for split in wanted
        }


def test_pooled_rows_are_all_that_silos_train_on(experiment_file: Path) -> None:
    together = simulate(load(experiment_file))
    pooled = simulate(load(experiment_file, ["data.pooled=true"]))
    assert list(pooled.clients) == ["pooled"]
    for split in ("train", "test"):
        every = [e.ids for silo in together.clients.values() for e in silo.examples[split]]
        assert [e.ids for e in pooled.clients["pooled"].examples[split]] == every
    trained = {example.ids for example in pooled.clients["pooled"].examples["train"]}
    held = [*pooled.clients["pooled"].examples["test"], *pooled.learner.examples("test")]
    held += pooled.learner.examples("validation")
    assert not trained & {example.ids for example in held}


def test_pooled_rows_are_asked_as_their_silo_asks(experiment_file: Path) -> None:
    text = experiment_file.read_text()
    own = "{template: 'What of {text}?'}"
    experiment_file.write_text(text + f"clients: {{silo-2: {{data: {own}}}}}\n")
    together = simulate(load(experiment_file))
    pooled = simulate(load(experiment_file, ["data.pooled=true"]))
    every = [e.ids for silo in together.clients.values() for e in silo.examples["train"]]
    assert [e.ids for e in pooled.clients["pooled"].examples["train"]] == every


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("num_clients=1", "there is one client"),
        ("data.pooled=true", "are set by a baseline comparison"),
        ("participants=[silo-1]", "are set by a baseline comparison"),
        ("data.test=0", r"data\.test is 0"),
    ],
)
def test_what_no_ladder_can_be_made_of_is_refused(
    experiment_file: Path, word: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        refuse(load(experiment_file, [word]))


def test_names_of_clients_that_would_share_a_folder_are_refused(experiment_file: Path) -> None:
    lines = "".join(f"  {n}: {{data: {{path: {n}.jsonl}}}}\n" for n in ("east", "east-longer"))
    experiment_file.write_text(experiment_file.read_text() + "clients:\n" + lines)
    with pytest.raises(UserError, match="cannot be called 'east-longer'"):
        refuse(load(experiment_file))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("participants=[silo-9]", "silo-9 is no client"),
        ("participants=[]", "at least 1"),
        ("evaluation.test=first", "evaluation.test is 'first'"),
    ],
)
def test_wrong_settings_are_named(experiment_file: Path, word: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(experiment_file, [word])


def test_participants_and_pooled_rows_exclude_each_other(experiment_file: Path) -> None:
    with pytest.raises(UserError, match="exclude each other"):
        load(experiment_file, ["participants=[silo-1]", "data.pooled=true"])
