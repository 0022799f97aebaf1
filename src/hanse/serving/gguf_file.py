"""GGUF files, which llama.cpp, Ollama and LM Studio run, by llama.cpp's own converter."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hanse.errors import UserError

CONVERTER = "convert_hf_to_gguf.py"  # in llama.cpp's folder; Homebrew puts it on the PATH
FOLDER = "LLAMA_CPP"  # in the environment: llama.cpp's folder
LONGEST = 500  # characters of the converter's error


def converter(place: Path | None = None) -> Path:
    """The file of llama.cpp's converter; raises UserError if it is not on this machine.

    place: llama.cpp's folder or the file itself; by default $LLAMA_CPP, or else the PATH.
    """
    chosen = place or (Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else None)
    if chosen is None:
        on_path = shutil.which(CONVERTER)
        file = Path(on_path) if on_path else None
    else:
        file = chosen.expanduser()
        file = file / CONVERTER if file.is_dir() else file
    if file is not None and file.is_file():
        return file.resolve()
    where = f"not in {chosen}" if chosen else "not on the PATH"
    raise UserError(
        f"--gguf needs llama.cpp's {CONVERTER}, which is {where}; run `git clone "
        f"https://github.com/ggml-org/llama.cpp` and name its folder with --llama-cpp or {FOLDER}; "
        "--merge works without it."
    )


def write(model: Path, file: Path, by: Path) -> None:
    """Convert a model's folder to a GGUF file; raises UserError with the converter's last line.

    by: llama.cpp's converter, as `converter` returns it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    words = [sys.executable, str(by), str(model), "--outfile", str(part), "--outtype", "auto"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
        if done.returncode or not part.is_file():
            lines = (done.stderr or done.stdout).strip().splitlines() or ["it wrote no file"]
            raise UserError(
                f"llama.cpp's {by.name} could not convert the model: {lines[-1]:.{LONGEST}}"
            )
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
