"""Reads the Brown corpus: a file for each document, a sentence in each line, word/tag pairs."""

import re
from collections.abc import Iterator
from pathlib import Path

from hanse.data.formats.row import Record
from hanse.errors import UserError

DOCUMENT = re.compile(r"c[a-r]\d\d")
# fw-: foreign word; -tl, -hl, -nc: in a title, in a headline, cited; $: possessive; *: negated.
MARKED = re.compile(r"(?:fw-)?(.+?)[$*]*(?:-(?:tl|hl|nc))*")


def records(folder: Path) -> Iterator[Record]:
    """The words and tags of each sentence, with its document and category, such as news."""
    try:
        lines = (folder / "cats.txt").read_text(encoding="ascii").split("\n")
        categories = dict(line.split() for line in lines if line.strip())
        documents = sorted(path for path in folder.iterdir() if DOCUMENT.fullmatch(path.name))
        for path in documents:
            source = {"document": path.name, "category": categories[path.name]}
            for number, line in enumerate(path.read_text(encoding="ascii").split("\n"), 1):
                if pairs := [token.rpartition("/") for token in line.split()]:
                    words, tags = [word for word, _, _ in pairs], [tag(t) for _, _, t in pairs]
                    yield f"brown/{path.name}:{number}", {"words": words, "tags": tags, **source}
    except (OSError, ValueError, LookupError) as error:
        raise UserError(
            f"{folder} is not the complete corpus ({error}); install it again."
        ) from None


def tag(written: str) -> str:
    """The part of speech in a tag, in capitals as in the corpus' manual: np$-tl is NP.

    The tag of a contraction, such as ppss+bem (I'm), stands for its first word.
    """
    match = MARKED.fullmatch(written.partition("+")[0])
    if match is None:
        raise ValueError(f"it has the tag {written!r}")
    return match[1].upper()
