"""Tokens of public texts that one model sends to another: equal ones give the identity."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from hanse.data.example import IGNORED, Example
from hanse.data.tokenization.alignment.token_texts import of_tokenizer
from hanse.errors import UserError
from hanse.learners import token_exchange
from hanse.learners.backbone import Backbone
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.tensors.serialization import pack, unpack
from tiny_models import save_llama

TEXTS = ["a great film 1", "the plot is dull", "lovely music é"]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose tokenizer knows other words."""
    folder = tmp_path_factory.mktemp("exchange") / "other"
    save_llama(folder, ["the plot is a great quick brown fox"] * 5)
    return folder


def opened(folder: Path) -> Backbone:
    return load(BaseModelSettings(str(folder), bf16=False))


def examples(backbone: Backbone) -> list[Example]:
    """The texts, with labels at all tokens, of which no model predicts the first."""
    rows = [tuple(backbone.tokenizer(text)["input_ids"]) for text in TEXTS]
    return [Example(ids, ids) for ids in rows]


def right(own: list[Example]) -> list[int]:
    """The classes at the labels."""
    return [token for example in own for token in example.labels[1:]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANSE_CACHE", str(tmp_path))


def test_equal_tokenizers_correspond_as_they_are(tiny_llama: Path, tiny_gpt2: Path) -> None:
    one, two = opened(tiny_llama), opened(tiny_gpt2)
    mine, theirs = examples(one), examples(two)
    assert mine == theirs
    sent = token_exchange.tokenization(two, theirs)
    number = sum(len(example) - 1 for example in mine)
    for found in token_exchange.correspondences(one, mine, sent):
        assert found.rows.tolist() == list(range(number))
        size = len(found.mapping)
        assert found.mapping.tolist() == list(range(size)) and size > 256
        assert found.labels.tolist() == right(mine)
    assert token_exchange.correspondences(one, mine, sent)[0].classes == token_exchange.classes(two)


def test_other_tokenizers_correspond_by_their_texts(tiny_llama: Path, other: Path) -> None:
    one, two = opened(tiny_llama), opened(other)
    mine, theirs = examples(one), examples(two)
    assert [e.ids for e in mine] != [e.ids for e in theirs]
    sent = token_exchange.tokenization(two, theirs)
    to, back = token_exchange.correspondences(one, mine, sent)
    texts = [of_tokenizer(backbone.tokenizer).texts for backbone in (one, two)]
    labels = [right(mine), right(theirs)]
    for found, source, target in ((to, 0, 1), (back, 1, 0)):
        assert found.labels.tolist() == labels[target]
        known = [(row, label) for label, row in enumerate(found.rows.tolist()) if row >= 0]
        assert 0 < len(known) < len(labels[target])
        for row, label in known:
            pair = texts[source][labels[source][row]], texts[target][labels[target][label]]
            counterpart = int(found.mapping[labels[source][row]])
            assert pair[0].strip() == pair[1].strip() or counterpart == labels[target][label]


def test_a_token_beyond_the_models_outputs_is_nobodys_counterpart(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """Its logit does not exist there; predictions of it would be refused by the receiver."""
    folder = tmp_path / "longer"
    shutil.copytree(tiny_llama, folder)
    one, tokenizer = opened(tiny_llama), AutoTokenizer.from_pretrained(folder)
    size = token_exchange.classes(one)
    tokenizer.add_tokens([f"extra{number}" for number in range(size - len(tokenizer) + 1)])
    tokenizer.save_pretrained(folder)
    two = opened(folder)
    sent = token_exchange.tokenization(two, examples(two))
    assert len(sent["ends"]) == size + 1 and int(sent["classes"]) == size
    for source, target in ((one, two), (two, one), (two, two)):
        tokens = token_exchange.tokenization(target, examples(target))
        there, _ = token_exchange.correspondences(source, examples(source), tokens)
        assert there.mapping.tolist()[: size - 1] == list(range(size - 1))
        assert int(there.mapping.max()) < size


def test_what_is_sent_has_all_texts_and_survives_a_message(other: Path) -> None:
    """Bytes that are a part of a character only, too."""
    backbone = opened(other)
    tokens = token_exchange.tokenization(backbone, examples(backbone))
    read = unpack(pack({"message": "t", "kind": "t"}, {}, {"tokens": tokens}), "t")[2]["tokens"]
    vocabulary, rows, classes = token_exchange._read(read)
    assert vocabulary == of_tokenizer(backbone.tokenizer)
    assert any("\udc80" <= text <= "\udcff" for text in vocabulary.texts)
    assert [e.ids for e in rows] == [e.ids for e in examples(backbone)]
    assert [e.labels[1:] for e in rows] == [e.ids[1:] for e in rows]
    assert classes == token_exchange.classes(backbone)


@pytest.mark.parametrize(
    "change",
    [
        {"ids": torch.tensor([10**6])},
        {"lengths": torch.tensor([1, 2])},
        {"ends": torch.tensor([1])},
        {"classes": torch.zeros(2)},
    ],
)
def test_tokens_that_cannot_be_are_refused(tiny_llama: Path, change: dict[str, Tensor]) -> None:
    backbone = opened(tiny_llama)
    sent = token_exchange.tokenization(backbone, examples(backbone))
    with pytest.raises(UserError, match="the server's tokens of the public texts cannot be read"):
        token_exchange.correspondences(backbone, examples(backbone), {**sent, **change})
    for name in sent:
        with pytest.raises(UserError, match="cannot be read"):
            token_exchange.correspondences(
                backbone, examples(backbone), {n: t for n, t in sent.items() if n != name}
            )


def test_the_same_tokens_are_aligned_once(
    tiny_llama: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many silos of a process have one foreign tokenizer."""
    asked: list[int] = []
    rows = token_exchange.TokenAlignment.label_rows

    def counted(*args: Any) -> Any:
        asked.append(1)
        return rows(*args)

    monkeypatch.setattr(token_exchange.TokenAlignment, "label_rows", counted)
    monkeypatch.setattr(token_exchange, "_known", {})
    server = opened(tiny_llama)
    sent = token_exchange.tokenization(server, examples(server))
    for _ in range(3):
        silo = opened(other)
        there, back = token_exchange.correspondences(silo, examples(silo), sent)
    assert len(asked) == 2
    fewer = token_exchange.tokenization(server, examples(server)[:2])
    one, two = token_exchange.correspondences(silo, examples(silo)[:2], fewer)
    assert len(asked) == 4 and len(one.rows) < len(there.rows) and len(two.rows) < len(back.rows)
    assert len(token_exchange._known) == 2


def test_other_texts_in_as_many_rows_are_refused(tiny_llama: Path, other: Path) -> None:
    """Windows of a text, or rows in another order, would be aligned with what they are not."""
    one, two = opened(tiny_llama), opened(other)
    mine, theirs = examples(one), examples(two)
    for backbone, rows in ((two, theirs), (one, mine)):
        sent = token_exchange.tokenization(backbone, [rows[0], *rows[:0:-1]])
        with pytest.raises(UserError, match=r"public row 2 begins with .*lot is .* with .*music"):
            token_exchange.correspondences(one, mine, sent)
    short = [Example(e.ids[:-2], e.labels[:-2]) for e in theirs]
    token_exchange.correspondences(one, mine, token_exchange.tokenization(two, short))


def test_other_texts_and_label_words_are_refused(tiny_llama: Path) -> None:
    backbone = opened(tiny_llama)
    mine = examples(backbone)
    sent = token_exchange.tokenization(backbone, mine)
    with pytest.raises(UserError, match="2 public texts here and 3 at the server; bring"):
        token_exchange.correspondences(backbone, mine[:2], sent)
    words = Example((1, 2, 3), (IGNORED,) * 3, ((4,), (5,)), 0)
    with pytest.raises(UserError, match="these rows have none; choose objective: sft, or"):
        token_exchange.tokenization(backbone, [words])
    assert torch.equal(sent["lengths"], torch.tensor([len(e) for e in mine], dtype=torch.int32))
