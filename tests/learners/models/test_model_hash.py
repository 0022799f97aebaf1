"""The hash of a base model: the same wherever it lies, another one for any other model."""

import importlib.util
import json
import os
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import transformers

from hanse.errors import UserError
from hanse.learners.models.model_files import PACKAGED
from hanse.learners.models.model_hash import LOADED, hash_of, model_hash


@pytest.fixture
def copy(tmp_path: Path, tiny_llama: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "elsewhere"))


def test_a_copy_has_the_same_hash(copy: Path, tiny_llama: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "transformers_version": "9"}))
    assert model_hash(copy) == model_hash(tiny_llama) == hash_of(str(copy))


def test_one_changed_bit_is_another_model(copy: Path, tiny_llama: Path) -> None:
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert model_hash(copy) != model_hash(tiny_llama)


def test_another_configuration_is_another_model(copy: Path, tiny_llama: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    assert model_hash(copy) != model_hash(tiny_llama)


def test_what_hanse_would_not_load_has_no_hash(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model.bin")
    with pytest.raises(UserError, match="a pickle"):
        model_hash(copy)


def test_a_models_id_on_a_hub_has_no_hash() -> None:
    assert hash_of("someone/something") is None


def test_every_file_that_is_loaded_is_hashed(copy: Path, tiny_llama: Path) -> None:
    """A swapped tokenizer, template or generation setting changes what is trained, too."""
    original = model_hash(copy)
    (copy / "README.md").write_text("the hub's card\n")
    assert model_hash(copy) == original
    added = {
        "chat_template.jinja": "{{ messages[0]['content'] }}",
        "generation_config.json": json.dumps({"eos_token_id": 7}),
        "additional_chat_templates/tool.jinja": "tools",
        "special_tokens_map.json": json.dumps({"eos_token": "x"}),
        "vocab.txt": "a\nb\n",
    }
    seen = {original}
    for name, text in added.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
        seen.add(model_hash(copy))
    shutil.copy(copy / "model.safetensors", copy / "spare.safetensors")
    seen.add(model_hash(copy))
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").write_text(json.dumps({**tokenizer, "truncation": None, "a": 1}))
    assert len({*seen, model_hash(copy)}) == len(added) + 3


def test_a_list_beside_the_settings_is_hashed_too(copy: Path) -> None:
    """sentence-transformers writes the texts of its training into data_config.json."""
    original = model_hash(copy)
    (copy / "data_config.json").write_text('[{"lines": 1}]')
    changed = model_hash(copy)
    (copy / "data_config.json").write_text('[{"lines":  1}]\n')
    assert model_hash(copy) == changed != original
    (copy / "data_config.json").write_text("[")
    with pytest.raises(UserError, match=r"data_config\.json holds no JSON; bring back the file"):
        model_hash(copy)


@pytest.mark.parametrize("name", PACKAGED)
def test_every_model_of_a_package_has_a_hash(name: str) -> None:
    if importlib.util.find_spec(PACKAGED[name][0]) is None:
        pytest.skip(f"{PACKAGED[name][2]}")
    assert len(hash_of(name) or "") == 64


def test_no_tokenizer_reads_a_file_that_is_not_hashed() -> None:
    """As transformers' own sources name the files of all its tokenizers."""
    named = re.compile(r"VOCAB_FILES_NAMES\s*=\s*\{(.*?)\}", re.DOTALL)
    files = set()
    for source in Path(transformers.__path__[0], "models").rglob("tokenization_*.py"):
        for told in named.findall(source.read_text(encoding="utf-8")):
            files |= set(re.findall(r':\s*"([^"]+)"', told))
    assert {"vocab.txt", "source.spm", "tokenizer.json"} <= files
    assert [file for file in files if not any(fnmatch(file, kind) for kind in LOADED)] == []


def test_a_file_is_read_again_only_if_it_has_changed(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of a model is the server's to choose, as often as it likes."""
    copy = Path(shutil.copytree(tiny_llama, tmp_path / "copy"))
    opened: list[str] = []
    usual = Path.open

    def counted(file: Path, *args: Any, **settings: Any) -> Any:
        opened.append(file.name)
        return usual(file, *args, **settings)

    monkeypatch.setattr(Path, "open", counted)
    first = hash_of(str(copy))
    once = len([name for name in opened if name == "tokenizer.json"])
    assert hash_of(str(copy)) == first
    assert len([name for name in opened if name == "tokenizer.json"]) == once == 1
    file = copy / "tokenizer.json"
    before, text = file.stat(), file.read_text()
    file.write_text(text.replace('"1.0"', '"1.1"'))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # of the same size and time
    assert file.stat().st_size == before.st_size and hash_of(str(copy)) != first
