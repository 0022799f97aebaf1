"""The lengths of rows in tokens: counted with the model's tokenizer, or guessed without it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hanse.data.formats.row import Row
from hanse.data.tokenization.token_cache import Rendering
from hanse.data.tokenization.tokenizer import encode
from hanse.errors import UserError
from hanse.learners.models.tokenizers import tokenizer_files
from hanse.learners.models.tokenizers.tokenizer_files import ModelTokenizer
from hanse.planning.first_experiment.data_summary import parts

LENGTHS = (64, 128, 256, 512, 1024)  # values of max_length
READ = {"labelled": 256, "text": 512}  # most tokens of rows of these kinds
EVEN, LONGEST = 500, 50  # counted rows: some of every length, and the longest
LETTERS = 2_000_000  # of all counted rows
TURN, GREETING = 8, 30  # guessed tokens of a chat template: of a turn, and of a conversation
ANY_LENGTH = 1_000_000_000  # more tokens than any row has


@dataclass(frozen=True)
class TokenLengths:
    """Tokens of the rows, and the length that they are cut to.

    max_length: the shortest of the usual lengths that holds all counted rows, unless it is the
        most for rows of this kind. cut: share of the rows that are longer.
    mean: tokens of an example. most: 95 % of the rows have no more. longest: tokens of the longest.
    needed: the same with the longest label word, which follows a row.
    examples: of a row, on average: a long text has several, its windows.
    counted: the number of rows that were counted. guessed: the reason for which the lengths are
        guessed; empty if the model's tokenizer counted them.
    """

    max_length: int
    cut: float
    mean: float
    most: int
    longest: int
    needed: int
    counted: int
    examples: float = 1.0
    guessed: str = ""

    @property
    def basis(self) -> str:
        """The way to the numbers, in words."""
        if self.guessed:
            return "guessed"
        return f"counted in {self.counted:,} row{'s' if self.counted > 1 else ''}"

    @property
    def fit(self) -> bool:
        """True if all counted rows fit into max_length."""
        return self.needed <= self.max_length

    @property
    def excess(self) -> str:
        """The share of rows that do not fit, what becomes of them, and the longest, in words."""
        share = f"{100 * self.cut:.0f} %" if self.cut >= 0.01 else "less than 1 %"
        what = "read in windows" if self.examples > 1 else "cut"
        return f"{share} of the rows are longer and {what}, up to {self.needed:,}"


@dataclass(frozen=True)
class Measure:
    """Counts the tokens of rows as examples, and of texts.

    positions: the most tokens that the model reads. reserved: the tokens of the longest label word,
    which follows a row. guessed: as in `TokenLengths`.
    """

    rows: Callable[[Sequence[Row]], Sequence[float]]
    texts: Callable[[Sequence[str]], Sequence[float]]
    positions: int = ANY_LENGTH
    reserved: int = 0
    guessed: str = ""


def measure(
    model: str, rows: Sequence[Row], example_kind: str, labels: Mapping[str, str], template: str
) -> Measure:
    """The measure with a model's tokenizer, or a guess with its reason if there is none.

    rows: some of those to count. example_kind, labels, template: as `render` takes them.
    """
    try:
        return _counting(tokenizer_files.find(model), rows[:1], example_kind, labels, template)
    except UserError as error:
        return Measure(_guessed_rows, lambda texts: list(map(tokens, texts)), guessed=str(error))


def token_lengths(rows: Sequence[Row], kind: str, measure: Measure) -> TokenLengths:
    """The lengths of rows, and the max_length that suits them; kind: that of the rows."""
    even, longest = sample(rows)
    sizes = measure.rows([*even, *longest])
    usual = sorted(sizes[: len(even)])
    most = min(READ.get(kind, LENGTHS[-1]), measure.positions)
    needed = max(sizes) + measure.reserved
    limit = min(most, next((length for length in LENGTHS if length >= needed), most))
    windows = sum(max(1, math.ceil(size / limit)) if kind == "text" else 1 for size in usual)
    read = usual if kind == "text" else [min(size, limit) for size in usual]
    return TokenLengths(
        max_length=limit,
        cut=sum(size + measure.reserved > limit for size in usual) / len(usual),
        mean=sum(read) / windows,
        most=round(usual[len(usual) * 19 // 20]),
        longest=round(max(sizes)),
        needed=math.ceil(needed),
        counted=len({id(row) for row in (*even, *longest)}),
        examples=windows / len(usual),
        guessed=measure.guessed,
    )


def sample(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """(rows of every length, the longest rows): not many, with not too many letters.

    All rows are in the first list if they are few.
    """
    in_order = sorted(rows, key=_letters)
    most = max(1, min(EVEN, LETTERS * len(rows) // max(1, sum(map(_letters, rows)))))
    step = -(-len(rows) // most)
    longest, letters = [in_order[-1]], _letters(in_order[-1])
    for row in reversed(in_order[-LONGEST:-1]):
        letters += _letters(row)
        if letters > LETTERS:
            break
        longest.append(row)
    return in_order[step // 2 :: step], longest


def _letters(row: Row) -> int:
    """The bytes of a row's text, which its tokens grow with."""
    return sum(len(part.encode()) for part in parts(row))


def _counting(
    model: ModelTokenizer,
    some: Sequence[Row],
    example_kind: str,
    labels: Mapping[str, str],
    template: str,
) -> Measure:
    """The measure with a model's tokenizer; raises UserError if it cannot read some rows."""
    kind = "class_labels" if example_kind == "label_words" and not model.causal else example_kind
    rendering = Rendering(model.tokenizer, kind, labels, template, ANY_LENGTH)
    words = rendering.render(some)[0].choices if kind == "label_words" else ()
    return Measure(
        lambda rows: [example.longest for example in rendering.render(rows)],
        lambda texts: list(map(len, encode(model.tokenizer, texts))),
        positions=model.positions or ANY_LENGTH,
        reserved=max(map(len, words), default=0),
    )


def _guessed_rows(rows: Sequence[Row]) -> list[float]:
    """The tokens of rows, about, with those of a chat template."""
    sizes = []
    for row in rows:
        frame = GREETING + TURN * len(row.messages) if row.messages else TURN
        sizes.append(sum(map(tokens, parts(row))) + frame)
    return sizes


def tokens(text: str) -> float:
    """The tokens of a text, about; for English, where four letters are one token."""
    digits = sum(character.isdigit() for character in text)
    foreign = sum(character > "\x7f" for character in text)
    return (len(text) - digits - foreign) / 4 + digits + 1.3 * foreign
