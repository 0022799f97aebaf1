"""hanse export."""

import contextlib
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.options import Folder, Overrides, Trust, console
from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.serving import gguf_file

with lazy_imports():
    from hanse.serving import merged_model


def export(
    folder: Folder,
    overrides: Overrides = None,
    merge: Annotated[
        Path | None, typer.Option(help="A new folder for the model, which transformers loads.")
    ] = None,
    gguf: Annotated[
        Path | None, typer.Option(help="A new file for llama.cpp, Ollama and LM Studio.")
    ] = None,
    llama_cpp: Annotated[
        Path | None, typer.Option(help="llama.cpp's folder; else $LLAMA_CPP or the PATH.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Write the model of a run or PEFT folder with the adapter merged into its weights."""
    if merge is None and gguf is None:
        raise UserError(
            "name what to write: --merge FOLDER for transformers and vLLM, or --gguf FILE for "
            f"llama.cpp and Ollama; the adapter alone is in {folder / 'adapter'}."
        )
    if gguf is not None and gguf.exists():
        raise UserError(f"{gguf} exists already; name a file that does not.")
    converter = gguf_file.converter(llama_cpp) if gguf is not None else None
    with contextlib.ExitStack() as stack:
        target = merge or _aside(stack, gguf)
        merged_model.write(folder, target, overrides or (), trust, generates_text=gguf is not None)
        if gguf is not None and converter is not None:
            gguf_file.write(target, gguf, converter)
    for path in filter(None, (merge, gguf)):
        console.print(f"wrote {path}", soft_wrap=True)


def _aside(stack: contextlib.ExitStack, file: Path | None) -> Path:
    """A folder for the model beside a file, where there is space; it is removed in the end."""
    home = (file or Path()).parent
    home.mkdir(parents=True, exist_ok=True)
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".", dir=home))) / "model"
