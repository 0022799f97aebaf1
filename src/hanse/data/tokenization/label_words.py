"""Tokenizes rows of text and label as prompts whose answer is a label word."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, permutations

from hanse.data.formats.row import Row
from hanse.data.tokenization import prompt_template
from hanse.data.tokenization.tokenizer import Tokenizer, encode, lead, shared
from hanse.errors import UserError
from hanse.registry import suggestion


def label_words(rows: Sequence[Row], labels: Mapping[str, str]) -> dict[str, str]:
    """The word of each label, in the order of the choices.

    If `labels` is empty, the words are the labels of the rows, sorted. All clients have the same
    choices if this is called once with the rows of all of them.
    """
    if labels:
        return dict(labels)
    return {value: value for value in sorted({row.label for row in rows if row.label is not None})}


def answers(tokenizer: Tokenizer, words: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """The tokens of " word" for each label."""
    # After a colon: some tokenizers put a space of their own before the first word of a text.
    texts = [":", *(f": {word}" for word in words.values())]
    (colon, *after_colon) = encode(tokenizer, texts)
    alone = encode(tokenizer, [f" {word}" for word in words.values()])
    return {
        label: tuple(ids[len(colon) :] if ids[: len(colon)] == colon else single)
        for label, ids, single in zip(words, after_colon, alone, strict=True)
    }


def refuse_ambiguous(words: Mapping[str, str], tokens: Mapping[str, tuple[int, ...]]) -> None:
    """Raise UserError if a word's tokens begin another's: the longer word could never win."""
    for a, b in permutations(words, 2):
        if tokens[a] == tokens[b][: len(tokens[a])]:
            same = "the same tokens as" if tokens[a] == tokens[b] else "tokens that begin"
            raise UserError(
                f"the label words {words[a]!r} and {words[b]!r} cannot be told apart: to this "
                f"tokenizer the first has {same} the second; set other words in `labels`."
            )


def refuse_unknown(rows: Sequence[Row], words: Mapping[str, str]) -> None:
    """Raise UserError for a row whose label has no word."""
    for row in rows:
        if row.label not in words:
            raise UserError(
                f"{row.place}: the label {row.label!r} is not one of "
                f"{', '.join(map(repr, words))}{suggestion(str(row.label), words)}; add it to "
                "`labels`, correct the row, or use the values as words with data.labels={}."
            )


def prompts(
    rows: Sequence[Row], tokenizer: Tokenizer, template: str, room: int, bare: bool = False
) -> tuple[list[list[int]], list[int]]:
    """The tokens of the template with each row's text, at most `room`, and the number of those cut.

    bare: without the token that the tokenizer puts before every text.
    Prompts that are too long lose the end of their longest text, or of several texts that are then
    equally long, never a part of the template.
    """
    parsed = prompt_template.parse(template)
    texts = [parsed.fill(row) for row in rows]
    front = [] if bare else lead(tokenizer)
    room -= len(front)
    filled = encode(tokenizer, ["".join(text) for text in texts])
    missing = [max(0, len(ids) - room) for ids in filled]
    long = [index for index, count in enumerate(missing) if count]
    for index, ends in zip(long, _ends(tokenizer, [texts[i] for i in long]), strict=True):
        filled[index] = _shortened(filled[index], ends, room, rows[index].place)
    result = [front + ids for ids in filled]
    if [] in result:
        raise UserError(
            f"{rows[result.index([])].place}: this tokenizer makes no tokens of the text; drop "
            "the row."
        )
    return result, missing


def _ends(tokenizer: Tokenizer, prompts: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """For each prompt the tokens up to the end of each of its pieces but the last."""
    beginnings = [list(accumulate(pieces[:-1])) for pieces in prompts]
    tokens = iter(encode(tokenizer, list(chain.from_iterable(beginnings))))
    # An empty text has no tokens, even if the tokenizer makes some of it.
    return [
        [ids if text else [] for text, ids in zip(texts, tokens, strict=False)]
        for texts in beginnings
    ]


def _shortened(prompt: list[int], ends: Sequence[list[int]], room: int, place: str) -> list[int]:
    """A prompt cut to `room` tokens at the ends of its longest texts.

    ends: the tokens up to the end of each piece, alternately of the template and of a text.
    Raises UserError if a text would lose all its tokens.
    """
    # A token with the end of a piece and the beginning of the next one belongs to the next.
    places = list(accumulate((shared(ids, prompt) for ids in ends), max))
    spans = list(zip(places[::2], places[1::2], strict=True))
    sizes = [end - start for start, end in spans]
    left = sum(sizes) - (len(prompt) - room)
    missing = max(sum(map(bool, sizes)), 1) - left  # each text keeps a token
    if missing > 0:
        raise UserError(
            f"{place}: the template and the label leave no room for the text; raise max_length by "
            f"{missing} or more, or shorten the template."
        )
    shortened = prompt
    for (start, end), size in reversed(list(zip(spans, _shares(sizes, left), strict=True))):
        shortened = shortened[: start + size] + shortened[end:]
    return shortened


def _shares(sizes: Sequence[int], left: int) -> list[int]:
    """The sizes of texts whose sum is `left`: the longest texts are cut to the same size.

    Tokens that cannot be divided equally go to the longest texts, or else to the first of them.
    """
    shares = [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda at: (sizes[at], -at))
    for others, at in zip(range(len(order), 0, -1), order, strict=True):
        shares[at] = min(sizes[at], left // others)
        left -= shares[at]
    return shares
