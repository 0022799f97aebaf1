"""Models of other architectures and tokenizers that teach each other texts, in whole runs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from folders import learned_digest
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.algorithms import fedmkt
from hanse.federation.distillation.selected_knowledge import Knowledge, select
from hanse.journal import run_folder
from hanse.learners import flops
from hanse.learners.adapted_model import AdaptedModel
from hanse.simulation import run as simulation
from hanse.tensors import top_k
from samples import reviews, write_experiment, write_lines
from stopping import ctrl_c

K = 8
PUBLIC_ROWS = 16


@pytest.fixture(scope="module")
def words(
    tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path, other_llama: Path
) -> Sequence[str]:
    """A client with another architecture, and one with another tokenizer."""
    home = tmp_path_factory.mktemp("tokenizers")
    public = write_lines(home / "rows.jsonl", reviews(PUBLIC_ROWS, seed=5))
    return [
        f"algorithm={{fedmkt: {{k: {K}}}}}",
        f"data.public={public}",
        *("objective=sft", "evaluation.tasks=[perplexity]", "rounds=2"),
        f"clients={{silo-1: {{model: {{model_name_or_path: {tiny_gpt2}}}}}, "
        f"silo-2: {{model: {{model_name_or_path: {other_llama}}}}}}}",
    ]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_llama: Path,
    review_file: Path,
    words: Sequence[str],
) -> Path:
    """The folder of a whole run."""
    file = write_experiment(tmp_path_factory.mktemp("finished"), tiny_llama, review_file)
    return simulation.run(load(file, words))


def test_server_and_clients_learn_together(finished: Path) -> None:
    records = run_folder.read_rounds(finished)
    assert [record.clients for record in records[1:]] == [("silo-1", "silo-2", "silo-3")] * 2
    assert records[-1].test["loss"] < records[0].test["loss"]
    rows = [row for row in run_folder.read_ledger(finished) if row.kind == "train"]
    assert len({row.up // 8 for row in rows}) == 1  # in the server's labels, whatever the tokenizer
    assert rows[-1].down > rows[0].down  # the server's predictions go to the clients from then on


def scrambled(*args: Any) -> Knowledge:
    """What is selected, with the classes of other tokens."""
    known = select(*args)
    indices = known.parts[top_k.INDICES]
    turned = (indices + 100) % args[2].classes
    return Knowledge({**known.parts, top_k.INDICES: turned}, known.taken)


def test_the_server_learns_from_predictions_alone(
    experiment_file: Path,
    words: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without its labels; predictions under the names of other tokens teach it nothing."""
    falls = []
    for name, chosen in (("real", select), ("scrambled", scrambled)):
        monkeypatch.setattr(fedmkt, "select", chosen)
        caplog.clear()
        settings = [f"algorithm={{fedmkt: {{k: {K}, label_weight: 0}}}}", "rounds=1"]
        folder = f"output_dir={experiment_file.parent / name}"
        with caplog.at_level("INFO", logger=fedmkt.__name__):
            records = run_folder.read_rounds(
                simulation.run(load(experiment_file, [*words, *settings, folder]))
            )
        [taken] = re.findall(r"the server learns the predictions of (\d+) of 16", caplog.text)
        assert int(taken) > 0
        falls.append(records[0].test["loss"] - records[1].test["loss"])
    assert falls[0] > 0 > falls[1]


def test_a_stopped_run_ends_as_if_it_had_not_stopped(
    experiment_file: Path, words: Sequence[str], finished: Path
) -> None:
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        simulation.run(load(experiment_file, words))
    assert learned_digest(simulation.resume(experiment_file.parent / "run")) == learned_digest(
        finished
    )


def test_public_texts_are_cut_since_tokenizers_would_divide_them_in_other_places(
    experiment_file: Path, words: Sequence[str], tmp_path: Path
) -> None:
    long = write_lines(tmp_path / "long.jsonl", [{"text": f"film {n} " * 99} for n in range(6)])
    settings = [f"data.public={long}", "model.max_length=48"]
    prepared = simulate(load(experiment_file, [*words, *settings]))
    learners = [prepared.learner, *(own.learner for own in prepared.clients.values())]
    assert {len(own.examples("public")) for own in learners} == {6}
    assert all(len(e) == 48 for own in learners for e in own.examples("public"))
    remarks = " ".join(prepared.dataset.remarks)
    assert "max_length (48) cuts 18 of 18 public rows" in remarks  # by three tokenizers
    assert "windows" not in remarks


def test_feddistill_refuses_another_tokenizer_in_a_sentence(
    experiment_file: Path, words: Sequence[str]
) -> None:
    own = ["algorithm=feddistill", "rounds=1", *words[1:4], words[-1]]
    folder = simulation.run(load(experiment_file, own))
    errors = {row.client: row.error for row in run_folder.read_ledger(folder) if row.error}
    assert errors.keys() == {"silo-2"}
    assert "labelled rows with the hash" in errors["silo-2"]


def test_speed_is_measured_with_the_first_clients_own_model(
    experiment_file: Path, words: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[AdaptedModel] = []
    monkeypatch.setattr(flops, "per_token", lambda learner, *_: asked.append(learner) or {})
    monkeypatch.setattr(flops, "peak", lambda *_: 1.0)
    prepared = simulate(load(experiment_file, words))
    simulation._measured_speed(prepared)
    [learner] = asked  # the server's model may have fewer tokens than the client's rows
    assert learner.backbone is prepared.clients["silo-1"].learner.backbone
    assert learner.backbone is not prepared.learner.backbone
