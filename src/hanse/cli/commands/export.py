"""hanse export."""

import shutil
import uuid
from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.options import Folder, Overrides, Trust, console
from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.serving import adapter_folder, gguf_file

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
    adapter_folder.refuse_unfinished(folder)  # before torch is imported
    if merge is None and gguf is None:
        adapter = folder / "adapter"
        raise UserError(
            "name what to write: --merge FOLDER for transformers and vLLM, or --gguf FILE for "
            "llama.cpp and Ollama; the adapter alone is in "
            f"{adapter if adapter.is_dir() else folder}."
        )
    if merge is not None and merge.exists():
        raise UserError(f"{merge} exists already; name a folder that does not.")
    if gguf is not None and gguf.exists():
        raise UserError(f"{gguf} exists already; name a file that does not.")
    converter = gguf_file.converter(llama_cpp) if gguf is not None else None
    target = merge or (gguf or folder).with_name(f".{uuid.uuid4().hex}")  # where there is space
    try:
        merged_model.write(folder, target, overrides or (), trust, generates_text=gguf is not None)
        if gguf is not None and converter is not None:
            gguf_file.write(target, gguf, converter)
    finally:
        if merge is None:
            shutil.rmtree(target, ignore_errors=True)
    for path in filter(None, (merge, gguf)):
        console.print(f"wrote {path}", soft_wrap=True)
