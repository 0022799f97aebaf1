"""hanse chat."""

import contextlib
import sys
from typing import Annotated

import typer

from hanse.cli.options import Folder, Overrides, Trust, console
from hanse.cli.progress.watch import watched
from hanse.errors import StoppedError, UserError, cleaned
from hanse.lazy_imports import lazy_imports
from hanse.serving import adapter_folder

with lazy_imports():
    from hanse.learners import generation
    from hanse.serving import chat as serving

HELP = (
    "/base changes between the adapter and its base model, /reset forgets the conversation, "
    "/quit ends."
)


def chat(
    folder: Folder,
    overrides: Overrides = None,
    prompt: Annotated[
        str | None, typer.Option(help="Answer this, print the answer alone, and end.")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="The base model, untouched.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Both, one after the other.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of one answer.")] = 256,
    temperature: Annotated[
        float, typer.Option(min=0, help="0: always the likeliest word; 1: as often as likely.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of what a temperature above 0 draws.")] = 0,
    trust: Trust = False,
) -> None:
    """Chat with the adapter of a run or a PEFT folder, or with its base model."""
    if compare and (base or prompt is None):
        raise UserError(
            "--compare shows both models' answers to one --prompt, without --base; in a "
            "conversation, /base changes between the two."
        )
    if prompt is not None and not prompt.strip():
        raise UserError("--prompt is empty; write something between the quotes.")
    if prompt is not None and any("\ud800" <= sign <= "\udfff" for sign in prompt):
        raise _not_text("--prompt")
    adapter_folder.refuse_other(folder)  # before torch is imported
    with watched(console):  # until the model is loaded
        talk = serving.open_talk(folder, overrides or (), trust)
    decoding = generation.Decoding(max_new_tokens, temperature, seed)
    talk.speak_as(base)
    if compare and prompt is not None:
        _both(talk, prompt, decoding)
    elif prompt is not None:
        _say(talk, prompt, decoding)
    else:
        _converse(talk, base, decoding)


def _not_text(what: str) -> UserError:
    return UserError(f"{what} is not UTF-8 text; write it in UTF-8.")


def _both(talk: "serving.Talk", prompt: str, decoding: "generation.Decoding") -> None:
    """Print the base model's answer and the adapter's answer."""
    for base in (True, False):
        console.print("base model" if base else "\nadapter", style="bold")
        talk.speak_as(base)
        talk.forget()
        _say(talk, prompt, decoding)


def _converse(talk: "serving.Talk", base: bool, decoding: "generation.Decoding") -> None:
    """Answer each line of the input; lines with a slash are commands."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives input() its arrow keys)
    interactive = sys.stdin.isatty()
    if interactive:
        _greet(talk, base)
    while True:
        try:
            line = input("\n> " if interactive else "").strip()
        except EOFError:
            break
        except KeyboardInterrupt as by:
            raise StoppedError("stopped; a conversation is not kept.", by) from None
        except UnicodeDecodeError:
            raise _not_text("a line of the input") from None
        if line == "/quit":
            break
        if line == "/base":
            base = not base
            talk.speak_as(base)
            console.print("now the base model" if base else "now the adapter", style="dim")
        elif line == "/reset":
            talk.forget()
            console.print("forgotten", style="dim")
        elif line.startswith("/"):
            console.print(HELP, style="dim", soft_wrap=True)
        elif line:
            try:
                _say(talk, line, decoding)
            except KeyboardInterrupt:
                console.print("\nstopped; the conversation goes on without it", style="dim")


def _greet(talk: "serving.Talk", base: bool) -> None:
    """Print the model's name and the commands."""
    name = talk.trained.experiment.model.model_name_or_path
    console.print(f"{name}{'' if base else ' with the adapter'}", style="bold", soft_wrap=True)
    if talk.labels:
        console.print("it answers a text with a label; each text stands alone", style="dim")
    if talk.tags_words:
        console.print("it answers a text with a tag for each word", style="dim")
    console.print(HELP, style="dim", soft_wrap=True)


def _say(talk: "serving.Talk", prompt: str, decoding: "generation.Decoding") -> None:
    """Print an answer: on a terminal word by word, elsewhere when it is complete."""
    if talk.tags_words:
        _show(" ".join(f"{word}/{tag}" for word, tag in talk.tags(prompt)), end="\n")
    elif talk.labels:
        ranked = talk.choose(prompt)
        width = max(len(word) for word, _ in ranked)
        for word, probability in ranked:
            _show(f"{word:<{width}}  {probability:.4f}", end="\n")
    elif sys.stdout.isatty():
        talk.answer(prompt, decoding, _show)
        _show("", end="\n")
    else:
        _show(talk.answer(prompt, decoding).strip(), end="\n")


def _show(text: str, end: str = "") -> None:
    """Print a text of a model or a label without control characters."""
    print(cleaned(text, most=None, lines=True), end=end, flush=True)
