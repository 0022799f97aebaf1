"""The Brown corpus as it is distributed: word/tag, a sentence a line, a file for each document."""

import re
from collections.abc import Iterator
from pathlib import Path

from hanse.data.formats.row import Record
from hanse.errors import UserError

DOCUMENT = re.compile(r"c[a-r]\d\d")
# fw-: a foreign word; -tl, -hl, -nc: of a title, of a headline, cited; $: a possessive; *: negated.
MARKED = re.compile(r"(?:fw-)?(.+?)[$*]*(?:-(?:tl|hl|nc))*")


def records(folder: Path) -> Iterator[Record]:
    """Each sentence's words and tags, with its document and that one's category, such as news."""
    try:
        listed = (folder / "cats.txt").read_text(encoding="ascii").split("\n")
        categories = dict(line.split() for line in listed if line.strip())
        documents = sorted(path for path in folder.iterdir() if DOCUMENT.fullmatch(path.name))
        for path in documents:
            where = {"document": path.name, "category": categories[path.name]}
            for number, line in enumerate(path.read_text(encoding="ascii").split("\n"), 1):
                if pairs := [token.rpartition("/") for token in line.split()]:
                    words, tags = [word for word, _, _ in pairs], [tag(t) for _, _, t in pairs]
                    yield f"brown/{path.name}:{number}", {"words": words, "tags": tags, **where}
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"{folder} is not the whole corpus ({error}); install it again.") from None


def tag(written: str) -> str:
    """The part of speech in a tag, in the capitals of the corpus' manual: np$-tl is NP.

    Of a contraction, such as ppss+bem (I'm), it is the first one's.
    """
    found = MARKED.fullmatch(written.partition("+")[0])
    if found is None:
        raise ValueError(f"it has the tag {written!r}")
    return found[1].upper()
