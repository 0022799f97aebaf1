"""Runs with several kinds of adapters: what is left on disk is what was evaluated."""

import shutil
from pathlib import Path

import pytest
import torch

from hanse.deployment.server import serve
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.learners.injection.adapter_files import read
from hanse.learners.injection.adapter_layout import folders
from hanse.reports.run.page import write_report
from hanse.serving import evaluate
from hanse.serving.chat import open_talk
from hanse.simulation import run as simulation

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of PEFT's own calls
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`"),  # as the card says
]
LORA = "lora: {r: 4, lora_alpha: 8, target_modules: [q_proj, v_proj, o_proj]}"
IA3_AND_LORA = f"adapter={{ia3: {{}}, {LORA}}}"
BOTH = f"adapter={{houlsby: {{reduction_factor: 4}}, {LORA}}}"
EACH = f"adapter={{{LORA}, pfeiffer: {{reduction_factor: 4}}, ia3: {{}}}}"
LOSSES = ["objective=sft", "evaluation.tasks=[perplexity]", "train.learning_rate=0.05"]


def _run(experiment_file: Path, folder: Path, *words: str) -> Path:
    changes = ["rounds=2", *LOSSES, *words, f"output_dir={folder}"]
    return simulation.run(load(experiment_file, changes))


def _losses(folder: Path, round: int) -> list[float]:
    found: list[float] = [*run_folder.read_evaluation(folder, "test-perplexity", round).items]
    return found


def _adapted(folder: Path) -> list[float]:
    """The test rows' losses with what `hanse evaluate` reads."""
    return list(evaluate.compare(folder)["perplexity"].adapted.items)


@pytest.mark.parametrize(
    ("adapter", "algorithm"),
    [
        (IA3_AND_LORA, "fedavg"),
        (f"adapter={{{LORA}, ia3: {{}}}}", "fedavg"),
        (BOTH, "fedavg"),
        (EACH, "fedavg"),
        (BOTH, "fedex_lora"),
        (IA3_AND_LORA, "flora"),
        (EACH, "flexlora"),
    ],
)
def test_evaluate_scores_what_the_run_scored(
    experiment_file: Path, tmp_path: Path, adapter: str, algorithm: str
) -> None:
    folder = _run(experiment_file, tmp_path / "run", adapter, f"algorithm={algorithm}")
    assert len(folders(folder / "adapter")) == adapter.count(": {")
    found = evaluate.compare(folder)["perplexity"]
    assert found.base.items == pytest.approx(_losses(folder, 0), abs=1e-5)
    assert found.adapted.items == pytest.approx(_losses(folder, 2), abs=1e-4)


def test_every_reader_has_all_kinds(experiment_file: Path, tmp_path: Path) -> None:
    folder = _run(experiment_file, tmp_path / "run", EACH)
    after, card = _losses(folder, 2), (folder / "adapter" / "README.md").read_text()
    write_report(folder)
    for name in ("/ia3", "/lora"):
        assert f'PeftModel.from_pretrained(base, "path/to/this/folder{name}")' in card
        assert f"{folder}/adapter{name}" in (folder / "report.html").read_text()
    on = _run(experiment_file, tmp_path / "on", f"adapter={{from: {folder}}}")
    assert _losses(on, 0) == pytest.approx(after, abs=1e-4)
    assert _adapted(on) == pytest.approx(_losses(on, 2), abs=1e-4)
    assert max(abs(a - b) for a, b in zip(_losses(on, 2), after, strict=True)) > 1e-2

    ids = torch.arange(20, 40)[None]
    said = [_logits(place, ids) for place in (folder, folder / "adapter")]
    torch.testing.assert_close(said[0], said[1])
    before = _files(folder / "adapter")
    shutil.rmtree(folder / "adapter")
    torch.testing.assert_close(_logits(folder, ids), said[0])  # of the last checkpoint
    simulation.resume(folder)
    assert _files(folder / "adapter") == before


def _logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """What `hanse chat` computes from a folder."""
    words = [] if (folder / "experiment.yaml").is_file() else ["model.bf16=false"]
    learner = open_talk(folder, words).learner
    learner.backbone.activate(learner.adapter)
    with torch.no_grad():
        return learner.backbone.logits(ids, torch.arange(20))


def _files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_what_clients_keep_is_not_saved_and_the_card_says_so(
    experiment_file: Path, tmp_path: Path
) -> None:
    folder = _run(experiment_file, tmp_path / "run", BOTH, "algorithm=pftt")
    assert [place.name for place in folders(folder / "adapter")] == ["adapter"]
    assert not (folder / "adapter" / "lora").exists()
    card = (folder / "adapter" / "README.md").read_text()
    assert (
        "Each client keeps its own `lora`; it never leaves the client and is not in this folder."
        in card
    )
    assert "tensors, such as" not in card
    assert _adapted(folder) == pytest.approx(_losses(folder, 2), abs=1e-4)

    words = (EACH, r"algorithm={fedper: {share: ['\.lora_', 'bottleneck_up']}}")
    folder = _run(experiment_file, tmp_path / "other", *words)
    assert [place.name for place in folders(folder / "adapter")] == ["adapter", "lora"]
    card = (folder / "adapter" / "README.md").read_text()
    assert "its own `ia3`; it never leaves the client" in card
    assert "its own version of 4 tensors, such as" in card and "bottleneck_down" in card
    assert _adapted(folder) == pytest.approx(_losses(folder, 2), abs=1e-4)


def test_what_clients_keep_of_an_earlier_adapter_is_saved_as_it_was(
    experiment_file: Path, tmp_path: Path
) -> None:
    first = _run(experiment_file, tmp_path / "first", BOTH)
    words = (f"adapter={{from: {first}}}", "algorithm=pftt")
    folder = _run(experiment_file, tmp_path / "run", *words)
    assert len(folders(folder / "adapter")) == 2
    old, new = (read(place / "adapter")[1] for place in (first, folder))
    assert all(torch.equal(old[n], new[n]) == (".lora_" in n) for n in old if "down.bias" not in n)
    assert "tensors, such as" in (folder / "adapter" / "README.md").read_text()
    assert _adapted(folder) == pytest.approx(_losses(folder, 2), abs=1e-4)


def test_silos_are_told_of_all_kinds(experiment_file: Path, tmp_path: Path) -> None:
    first = _run(experiment_file, tmp_path / "first", EACH)
    words = [*LOSSES, f"adapter={{from: {first}}}"]
    made = simulate(load(experiment_file, words))
    told = tmp_path / "told.yaml"
    told.write_text(serve._envelope(tmp_path, made).settings)
    there = simulate(load(told))
    assert there.learner.parameters().keys() == made.learner.parameters().keys()
    there.learner.load(made.learner.tensors())
    batch = made.learner.batch(made.learner.examples("test"))
    with torch.no_grad():
        torch.testing.assert_close(there.learner.forward(batch), made.learner.forward(batch))
    personal = simulate(load(experiment_file, [*words, "algorithm=pftt"]))
    with pytest.raises(UserError, match="would not begin as in"):
        serve._envelope(tmp_path, personal)


@pytest.mark.parametrize(
    "algorithm",
    [
        "fedex_lora",
        "fedpipe",
        "fedsa_lora",
        "ffa_lora",
        "flexlora",
        "flora",
        "hetlora",
        "lora_fair",
        "rolora",
    ],
)
@pytest.mark.parametrize(
    ("adapter", "has"),
    [
        ("ia3", "IA3 alone"),
        ("{houlsby: {}, ia3: {}}", "Houlsby alone"),
        ("{lora: {use_dora: true}}", "use_dora"),
    ],
)
def test_what_needs_factors_is_refused_before_a_model_is_loaded(
    experiment_file: Path, algorithm: str, adapter: str, has: str
) -> None:
    words = [f"adapter={adapter}", f"algorithm={algorithm}"]
    experiment = load(experiment_file, [*words, "model.model_name_or_path=owner/nowhere"])
    sentence = f"learns LoRA's factors A and B, but the adapter has {has}; choose the adapter lora"
    with pytest.raises(UserError, match=sentence):
        simulate(experiment)


def test_what_needs_lora_is_refused_before_any_client_is_asked(
    experiment_file: Path, tmp_path: Path
) -> None:
    folder, words = tmp_path / "run", ("adapter={houlsby: {}, ia3: {}}", "algorithm=fedex_lora")
    with pytest.raises(UserError, match="learns LoRA's factors A and B, but the adapter has"):
        _run(experiment_file, folder, *words)
    assert run_folder.read_ledger(folder) == []
