"""hanse emulator: the folder that it writes, its record, and what it refuses before it loads."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny_models
from hanse.errors import UserError
from hanse.learners.models import pretrained
from hanse.learners.models.emulators import record
from hanse.learners.models.model_hash import hash_of, model_hash
from samples import Outcome

LAYERS = 7
Call = Callable[..., Outcome]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "deep"
    tiny_models.save_llama(folder, layers=LAYERS)
    return folder


def test_a_folder_with_its_record(hanse: Call, deep: Path, tmp_path: Path) -> None:
    done = hanse("emulator", deep, "--output", "small", "--compressor", "{layer_drop: {drop: 0.6}}")
    assert done.code == 0, done.err
    assert "layers 0, 1, 3, 4" in done.out and "the model's own" in done.out
    assert "adapter.lora.layers_to_transform=[0, 1, 3, 4]" in done.out
    written = record.of_model(str(tmp_path / "small"))
    assert written is not None and written.layers == (0, 1, 2, 5, 6)
    assert (written.adapter_layers, written.whole_adapter_layers) == ([0, 1, 3, 4], [0, 1, 5, 6])
    assert written.source.sha256 == hash_of(str(deep)) and written.distillation is None
    assert pretrained.find("small").config.num_hidden_layers == 5
    again = hanse("emulator", deep, "--output", "small")
    assert again.code == 2 and "exists already" in again.err


def test_the_same_command_writes_the_same_files(
    hanse: Call, deep: Path, tmp_path: Path, review_file: Path
) -> None:
    words = ("--texts", review_file, "--steps", 4, "--batch-size", 2, "--learning-rate", 0.01)
    for name in ("a", "b"):
        done = hanse("emulator", deep, "--output", name, *words)
        assert done.code == 0 and "160 examples: lm" in done.out, done.err
        done_a = done.out
    assert model_hash(tmp_path / "a") == model_hash(tmp_path / "b")
    other = hanse("emulator", deep, "--output", "c", *words, "--seed", 1)
    assert other.code == 0 and model_hash(tmp_path / "a") != model_hash(tmp_path / "c")
    written = record.of_model("a")
    assert written is not None and written.distillation is not None
    assert written.distillation.settings["steps"] == 4 and written.distillation.rows == 160
    assert "but for a distillation, which every client sees" in " ".join(done_a.split())
    assert written.middle_error is not None and written.middle_error > 0
    assert "rows_sha256" not in (tmp_path / "a" / record.FILE).read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--bottom", 4, "--top", 3], "leave no middle"),
        (["--compressor", "layer_drob"], "did you mean 'layer_drop'?"),
        (["--compressor", "{layer_drop: {dropp: 1}}"], "did you mean 'drop'?"),
        (["--compressor", "{layer_drop: {keep: 4}}"], "the middle has 3 layers"),
        (["--compressor", "{low_rank: {energy: 1.0}}"], "should be less than 1"),
        (["--compressor", "7"], "--compressor is 7"),
        (["--compressor", "{"], "not valid YAML"),
        (["--steps", 3, "--seed", 1], "--steps, --seed belong to the distillation"),
        (["--texts", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--texts", "{reviews}", "--compressor", "quantized"], "cannot be trained"),
        (["--texts", "{reviews}", "--max-length", 300], "at most 256 tokens"),
        (["--texts", "{reviews}", "--learning-rate", 0], "learns nothing"),
        (["--texts", "{reviews}", "--learning-rate", "nan"], "--learning-rate is nan"),
        (["--texts", "{reviews}", "--kd-weight", "inf"], "--kd-weight is inf"),
        (["--texts", "{reviews}", "--seed", 2**80], "--seed is "),
        (["--texts", "{reviews}", "--learning-rate", 1e39], "less than or equal to 1000000"),
        (["--texts", "{reviews}", "--learning-rate", 1e6, "--steps", 9], "diverges"),
        (["--texts", "{reviews}", "--lm-weight", 0, "--kd-weight", 0], "learns nothing"),
    ],
)
def test_bad_input_is_one_sentence(
    hanse: Call, deep: Path, review_file: Path, words: list[object], sentence: str, tmp_path: Path
) -> None:
    named = [review_file if word == "{reviews}" else word for word in words]
    done = hanse("emulator", deep, "--output", "new", *named)
    assert done.code == 2 and sentence in done.err, done.err
    assert len([line for line in done.err.splitlines() if line.startswith("hanse: ")]) == 1
    assert not (tmp_path / "new").exists()


def test_models_that_are_none(hanse: Call, tiny_bert: Path) -> None:
    for model, sentence in (("nowhere", "there is no model"), (tiny_bert, "no causal language")):
        done = hanse("emulator", model, "--output", "new")
        assert done.code == 2 and sentence in done.err


@pytest.mark.parametrize(
    "change",
    [
        {"layers": [0, 1, 5, 6, 2]},
        {"bottom": 0},
        {"top": 6},
        {"source": {}},
        {"more": 1},
        {"layers": [0, 1, 2, 9, 6]},
        {"bottom": 3_000_000},
        {"top": 3e7},
        {"bottom": 9_000},
    ],
)
def test_a_damaged_record_is_refused(
    hanse: Call, deep: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    assert hanse("emulator", deep, "--output", "small").code == 0
    file = tmp_path / "small" / record.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="no record of an emulator"):
            record.read(tmp_path / "small")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_quantized_middle_is_said_to_be_nearly_the_model(hanse: Call, deep: Path) -> None:
    done = hanse("emulator", deep, "--output", "small", "--compressor", "quantized")
    words = " ".join(done.out.split())
    assert "nearly the same, which every client sees; its matrices are 0.00" in words


def test_a_hash_of_rows_is_read_and_never_written(
    hanse: Call, deep: Path, review_file: Path, tmp_path: Path
) -> None:
    words = ("--texts", review_file, "--steps", 1, "--batch-size", 1)
    assert hanse("emulator", deep, "--output", "small", *words).code == 0
    file = tmp_path / "small" / record.FILE
    content = json.loads(file.read_text())
    content["distillation"]["rows_sha256"] = "0" * 64
    file.write_text(json.dumps(content))
    entry = record.read(file.parent)
    assert entry is not None and entry.distillation is not None
    assert entry.distillation.rows_sha256 == "0" * 64
    record.write(file.parent, entry)
    assert "rows_sha256" not in file.read_text()


def test_other_folders_have_no_record(deep: Path) -> None:
    assert record.of_model(str(deep)) is None
