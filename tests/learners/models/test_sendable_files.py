"""Only settings, tokenizer and safetensors files of the usual names are sent, and all of them."""

import json
import shutil
from pathlib import Path

import pytest

from hanse.errors import UserError
from hanse.learners.models.model_hash import model_hash
from hanse.learners.models.sendable_files import is_model, sendable, sendable_files


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_llama, tmp_path / "model")


def test_all_that_the_hash_covers_is_sent_and_nothing_else(model: Path, tmp_path: Path) -> None:
    before = model_hash(model)
    (model / "emulator.json").write_text(json.dumps({"kept": [0, 1]}))
    (model / "README.md").write_text("not loaded")
    (model / "training_args.bin").write_bytes(b"a pickle")
    files = sendable_files(str(model))
    assert {"config.json", "model.safetensors", "tokenizer.json", "emulator.json"} <= {*files}
    assert not {"README.md", "training_args.bin"} & {*files}
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, file in files.items():
        shutil.copy(file, copy / name)
    assert model_hash(copy) == model_hash(model) != before


@pytest.mark.parametrize(
    "name",
    [
        *("modeling.py", "pytorch_model.bin", "adapter_config.json", "x.safetensors"),
        *("../config.json", "model-1-of-2.safetensors", "config.json.py"),
        "additional_chat_templates/a.jinja",
    ],
)
def test_no_other_name_is_sent(name: str) -> None:
    assert not sendable(name)
    assert sendable("model-00001-of-00002.safetensors") and sendable("config.json")


def test_a_model_has_settings_and_weights() -> None:
    assert is_model(["config.json", "model-00001-of-00002.safetensors"])
    assert not is_model(["config.json", "tokenizer.json"])
    assert not is_model(["model.safetensors"])


def test_what_cannot_be_sent_is_refused_with_a_way_out(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the name of a model on a hub; name a folder"):
        sendable_files("owner/model")
    packed = tmp_path / "model.gguf"
    packed.write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"is a \.gguf file; name a folder"):
        sendable_files(str(packed))
    (model / "notes.json").write_text("{}")
    with pytest.raises(UserError, match=r"also has 'notes\.json', which its hash covers; move"):
        sendable_files(str(model))
    (model / "notes.json").unlink()
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    with pytest.raises(UserError, match=r"also has 'additional_chat_templates/tools\.jinja'"):
        sendable_files(str(model))
    shutil.rmtree(model / "additional_chat_templates")
    (model / "merges.txt").touch()
    with pytest.raises(UserError, match=r"merges\.txt is empty"):
        sendable_files(str(model))
