"""Models of other architectures and tokenizers that teach each other texts, in whole runs."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from folders import learned_digest
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.learners import flops
from hanse.learners.adapted_model import AdaptedModel
from hanse.simulation import run as simulation
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


def test_a_stopped_run_ends_as_if_it_had_not_stopped(
    experiment_file: Path, words: Sequence[str], finished: Path
) -> None:
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        simulation.run(load(experiment_file, words))
    assert learned_digest(simulation.resume(experiment_file.parent / "run")) == learned_digest(
        finished
    )


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
