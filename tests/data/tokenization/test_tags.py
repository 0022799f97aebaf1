"""Words become tokens, of which the first of each word has its tag."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from hanse.data.example import IGNORED
from hanse.data.formats.row import Row
from hanse.data.tokenization.tags import read_words, tag_names, tagged
from hanse.errors import UserError
from hanse.learners.models.model_files import locate
from samples import sentences


@pytest.mark.parametrize("name", ["tiny_bert", pytest.param("minilm", marks=pytest.mark.extras)])
def test_a_words_first_token_has_its_tag(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(name))
    rows = [
        Row(words=tuple(row["tokens"]), tags=tuple(row["ner_tags"]), text=" ".join(row["tokens"]))
        for row in (
            *sentences(20),
            {"tokens": ["U.S.", "can't", "ünbelievable", "a", "-", "``"], "ner_tags": [*"OOOOOO"]},
        )
    ]
    names = tag_names(rows, {})
    examples = tagged(rows, tokenizer, names, 64)
    for row, example in zip(rows, examples, strict=True):
        # Transformers' own account of which token is of which word.
        encoded = tokenizer(list(row.words), is_split_into_words=True, truncation=True)
        if name == "minilm":
            assert list(example.ids) == encoded["input_ids"]
            words = encoded.word_ids()
            first = [
                place
                for place, word in enumerate(words)
                if word is not None and word not in words[:place]
            ]
            assert [p for p, tag in enumerate(example.tags) if tag != IGNORED] == first
        said = [example.classes[tag] for tag in example.tags if tag != IGNORED]
        assert said == list(row.tags)


@pytest.fixture(scope="session")
def minilm() -> str:
    """The folder of the real encoder's tokenizer."""
    try:
        return locate("minilm-l6")
    except UserError:
        pytest.skip("minilm-l6 is not installed")


def test_what_is_too_long_loses_its_last_words(tiny_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    words, tags = ("great", "film", "dull"), ("A", "B", "A")
    row = Row(words=words, tags=tags, text=" ".join(words), place="f:1")
    whole = tagged([row], tokenizer, tag_names([row], {}), 64)[0]
    assert [tag for tag in whole.tags if tag != IGNORED] == [0, 1, 0]
    last = max(place for place, tag in enumerate(whole.tags) if tag != IGNORED)
    cut = tagged([row], tokenizer, tag_names([row], {}), last)[0]
    assert [tag for tag in cut.tags if tag != IGNORED] == [0, 1]


@pytest.mark.extras
def test_a_word_of_which_nothing_is_left_has_no_tag(minilm: str) -> None:
    words, tags = ("film", "\u200b", "dull"), ("A", "B", "A")  # a space of no width
    row = Row(words=words, tags=tags, text=" ".join(words), place="f:1")
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    (example,) = tagged([row], tokenizer, tag_names([row], {}), 64)
    assert [tag for tag in example.tags if tag != IGNORED] == [0, 0]
    assert read_words(row, tokenizer, 64) == [0, 2]
    nothing = Row(words=words[1:2], tags=tags[1:2], text=words[1], place="f:2")
    with pytest.raises(UserError, match="f:2: this model's tokenizer makes no tokens"):
        tagged([nothing], tokenizer, tag_names([row], {}), 64)
