"""Public rows: the same for all who need them, beside the private rows and never among them."""

from pathlib import Path

import pytest

from hanse.errors import UserError
from hanse.experiment.assembly import resources
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.loading import load
from hanse.journal import environment
from hanse.simulation import run as simulation
from hanse.simulation.baselines.variants import variants
from samples import ROOT, reviews, write_lines

PART = ROOT / "tests" / "parts" / "public_hashes.py"
EVERYWHERE, SERVER_ONLY = (
    f"algorithm={PART}:{name}" for name in ("PublicHashes", "PublicAtServer")
)


@pytest.fixture
def public_file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "public.jsonl", reviews(24, seed=5))


def simulated(experiment_file: Path, *words: str) -> Simulation:
    return simulate(load(experiment_file, words))


def test_server_and_clients_have_the_same_examples(
    experiment_file: Path, public_file: Path
) -> None:
    made = simulated(experiment_file, EVERYWHERE, f"data.public={public_file}")
    expected = list(made.learner.examples("public"))
    assert len(expected) == 24
    for client in made.clients.values():
        assert client.learner.examples("public") is made.learner.examples("public")


def test_public_rows_are_nobodys_private_rows(experiment_file: Path, public_file: Path) -> None:
    plain = simulated(experiment_file)
    made = simulated(experiment_file, EVERYWHERE, f"data.public={public_file}")
    assert made.dataset.train == plain.dataset.train
    assert made.dataset.digest == plain.dataset.digest
    assert made.profiles == plain.profiles


def test_they_come_only_to_those_who_need_them(experiment_file: Path, public_file: Path) -> None:
    made = simulated(experiment_file, SERVER_ONLY, f"data.public={public_file}")
    assert len(made.learner.examples("public")) == 24
    assert all(not client.learner.examples("public") for client in made.clients.values())


def test_a_client_reads_them_with_its_own_length(experiment_file: Path, public_file: Path) -> None:
    lines = "clients: {silo-2: {model: {max_length: 12}}}\n"
    experiment_file.write_text(experiment_file.read_text() + lines)
    made = simulated(experiment_file, EVERYWHERE, f"data.public={public_file}")
    longest = {
        name: max(map(len, client.learner.examples("public")))
        for name, client in made.clients.items()
    }
    assert longest["silo-2"] < 12 < longest["silo-1"] == longest["silo-3"]
    assert [text for text in made.dataset.remarks if "public rows" in text]


def test_they_have_settings_of_their_own(experiment_file: Path, tmp_path: Path) -> None:
    rows = [{"words": row["text"], "label": row["label"], "use": "yn"[n % 2]}
            for n, row in enumerate(reviews(20))]  # fmt: skip
    file = write_lines(tmp_path / "public.jsonl", rows)
    words = [f"data.public.path={file}", "data.public.columns={text: words}"]
    words += ["data.public.filter={use: y}", "data.public.template='{text} is'"]
    made = simulated(experiment_file, EVERYWHERE, *words)
    [first, *_] = examples = made.learner.examples("public")
    assert len(examples) == 10
    assert made.learner.text(first.ids).startswith(f"{rows[0]['words']} is")


def test_a_run_resumes_with_the_same_public_rows_only(
    experiment_file: Path, public_file: Path
) -> None:
    folder = simulation.run(load(experiment_file, [EVERYWHERE, f"data.public={public_file}"]))
    noted = environment.read(folder).public
    assert noted is not None and len(noted) == 64
    write_lines(public_file, reviews(23, seed=5))
    with pytest.raises(UserError, match=f"had the hash {noted} when it was begun, and have"):
        simulation.resume(folder, trusted=True)


def test_held_out_rows_that_are_public_are_told(experiment_file: Path, review_file: Path) -> None:
    made = simulated(experiment_file, SERVER_ONLY, f"data.public={review_file}")
    assert "50 held-out rows are also in data.public" in " ".join(made.dataset.remarks)


@pytest.mark.parametrize(
    ("algorithm", "settings", "said"),
    [
        (EVERYWHERE, [], r"needs public rows \(server and clients\), and data\.public names none"),
        ("algorithm=fedavg", ["path={}"], r"algorithm fedavg uses no public rows; leave data\.pub"),
        (EVERYWHERE, ["path={}", "sha256=" + "5e" * 32], r"sha256 is 5e5e.*bring the same rows"),
        (EVERYWHERE, ["path={}", "template=x"], r"data\.public\.template 'x' has no"),
        (EVERYWHERE, ["path={}", "sha256=5e"], "a SHA-256 of 64"),
        (EVERYWHERE, ["path={}", "filter={label: odd}"], r"data\.public\.filter: no row of"),
        (
            EVERYWHERE,
            ["path={}", "columns={text: a}"],
            r"^/.*: data\.public\.columns takes text from",
        ),
        (EVERYWHERE, ["path={}", "colums={text: a}"], r"did you mean 'columns'"),
    ],
)
def test_mistakes_are_refused_before_a_model_is_loaded(
    experiment_file: Path,
    public_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    algorithm: str,
    settings: list[str],
    said: str,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(resources, "load", never)
    words = [f"data.public.{word}".replace("{}", str(public_file), 1) for word in settings]
    with pytest.raises(UserError, match=said):
        simulate(load(experiment_file, [algorithm, *words]))


def test_a_baseline_comparison_keeps_no_public_rows(
    experiment_file: Path, public_file: Path
) -> None:
    experiment = load(experiment_file, [EVERYWHERE, f"data.public={public_file}"])
    [federated, *others] = variants(experiment, {"silo-1": 30, "silo-2": 30}, 0, Path("home"))
    assert federated.experiment.data.public is not None
    assert all(other.experiment.data.public is None for other in others)
