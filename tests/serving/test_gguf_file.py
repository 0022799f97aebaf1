"""llama.cpp's converter: where it is looked for, and what is said where it is not or fails."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hanse.errors import UserError
from hanse.serving import gguf_file
from samples import Outcome


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without llama.cpp."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv(gguf_file.FOLDER, raising=False)


def _converter(folder: Path, code: str = "") -> Path:
    file = folder / gguf_file.CONVERTER
    folder.mkdir(exist_ok=True)
    file.write_text(code)
    file.chmod(0o755)
    return file


def test_the_converter_is_found_by_option_environment_and_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path, in_environment, named = (_converter(tmp_path / name) for name in ("a", "b", "c"))
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert gguf_file.converter() == on_path
    monkeypatch.setenv(gguf_file.FOLDER, str(in_environment.parent))
    assert gguf_file.converter() == in_environment
    assert gguf_file.converter(named) == gguf_file.converter(named.parent) == named


def test_a_missing_converter_is_one_sentence_before_any_work(
    tmp_path: Path, hanse: Callable[..., Outcome]
) -> None:
    with pytest.raises(UserError, match=r"not on the PATH; run `git clone .* --merge works"):
        gguf_file.converter()
    with pytest.raises(UserError, match=f"not in {tmp_path}"):
        gguf_file.converter(tmp_path)
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    (tmp_path / "run" / "experiment.yaml").touch()
    (tmp_path / "run" / "adapter" / "adapter_model.safetensors").touch()
    done = hanse("export", tmp_path / "run", "--gguf", "x.gguf")
    assert done.code == 2 and "convert_hf_to_gguf.py" in done.err
    done = hanse("export", tmp_path / "run")
    assert done.code == 2 and "name what to write: --merge FOLDER" in done.err
    assert str(tmp_path / "run" / "adapter") in done.err
    (tmp_path / "there.gguf").write_text("")
    done = hanse("export", tmp_path / "run", "--gguf", tmp_path / "there.gguf")
    assert done.code == 2 and "exists already" in done.err


def test_a_converter_is_called_with_folder_and_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "Path(sys.argv[sys.argv.index('--outfile') + 1]).write_text(' '.join(sys.argv[1:]))"
    )
    gguf_file.write(tmp_path / "model", tmp_path / "new" / "x.gguf", _converter(tmp_path, code))
    folder = tmp_path / "new"
    words = f"{tmp_path / 'model'} --outfile {folder / '.x.gguf.part'} --outtype auto"
    assert (folder / "x.gguf").read_text() == words
    assert [path.name for path in folder.iterdir()] == ["x.gguf"]


def test_what_the_converter_cannot_do_is_its_last_line(tmp_path: Path) -> None:
    code = "import sys; print('reading'); sys.exit('Model TinyForX is not supported')"
    with pytest.raises(UserError, match="could not convert the model: Model TinyForX is not"):
        gguf_file.write(tmp_path, tmp_path / "x.gguf", _converter(tmp_path / "c", code))
    with pytest.raises(UserError, match="it wrote no file"):
        gguf_file.write(tmp_path, tmp_path / "x.gguf", _converter(tmp_path / "d"))
    assert not (tmp_path / "x.gguf").exists() and sys.executable
