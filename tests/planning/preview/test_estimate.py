"""The data that hanse check shows: how they were read, how long they are."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.loading import load
from hanse.learners.models import precision
from hanse.learners.models.precision import ComputeMode, Fastest
from hanse.observability.paired_timing import Comparison, Measurement
from hanse.planning.preview import estimate
from samples import reviews, write_lines
from tiny_models import save_llama


@pytest.mark.parametrize("limit", [12, 18, 64])
def test_lengths_are_those_before_the_cut(
    experiment_file: Path, tiny_llama: Path, limit: int
) -> None:
    experiment = load(experiment_file, [f"model.max_length={limit}", "data.client_test=0"])
    [(found, names)] = estimate.preview(experiment).lengths.items()
    assert names == ["silo-1", "silo-2", "silo-3"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    answer = max(len(tokenizer(f" {word}")["input_ids"]) for word in ("negative", "positive"))
    sizes = sorted(
        len(tokenizer(f"Review: {row.text}\nSentiment:")["input_ids"])
        for rows in divide(experiment).train.values()
        for row in rows
    )
    assert len(sizes) == 110
    assert found.mean == pytest.approx(sum(sizes) / 110)
    assert sizes[int(0.95 * 109)] <= found.most <= sizes[int(0.95 * 109) + 1]
    assert found.limit == limit
    assert found.cut == sum(size > limit - answer for size in sizes) / 110


def test_an_encoders_texts_are_cut_where_they_are_too_long(
    experiment_file: Path, tiny_llama: Path, tiny_bert: Path
) -> None:
    text = experiment_file.read_text().replace(str(tiny_llama), str(tiny_bert))
    experiment_file.write_text(text)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    words = ["adapter.lora.target_modules=[query]", "data.client_test=0"]
    for limit in (8, 64):
        experiment = load(experiment_file, [*words, f"model.max_length={limit}"])
        found = estimate.preview(experiment)
        sizes = [
            len(tokenizer(row.text)["input_ids"])
            for rows in divide(experiment).train.values()
            for row in rows
        ]
        [lengths] = found.lengths
        assert lengths.cut == sum(size > limit for size in sizes) / 110
        assert found.example[-1][0] in (" → negative", " → positive")


def test_readings_say_what_the_columns_were_taken_for(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    [(path, reading)] = estimate.preview(load(experiment_file)).readings
    assert path == str(review_file)
    assert (reading.kind, reading.columns) == ("labelled", {"text": "text", "label": "label"})
    odd = [{"body": row["text"], "verdict": row["label"]} for row in reviews(80)]
    files = [write_lines(tmp_path / f"{name}.jsonl", odd) for name in ("north", "south")]
    words = [f"clients.{file.stem}.data.path={file}" for file in files]
    words += ["data.columns={text: body, label: verdict}", "data.path=none"]
    found = estimate.preview(load(experiment_file, [*words, "data.partition=iid"])).readings
    assert [path for path, _ in found] == [str(file) for file in files]
    assert all(reading.columns == {"text": "body", "label": "verdict"} for _, reading in found)


def test_the_precision_comes_with_the_comparison_that_decided_it(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load(experiment_file, ["model.bf16=auto"])
    small = estimate.preview(experiment)  # too small to be measured
    assert (small.precision, small.measured) == ("float32 with torch's products", ())
    comparison = Comparison("float32", "bfloat16", (0.2, 0.1), 2.0, 1.9, 2.1, 9)
    attention = Comparison("one", "another", (0.2, 0.2), 1.0, 0.9, 1.1, 9)
    fastest = Fastest(
        ComputeMode(False), ComputeMode(True), comparison, Measurement((attention, comparison))
    )
    monkeypatch.setattr(precision, "measured", lambda *_: fastest)
    measured = estimate.preview(experiment)
    assert measured.precision == "bfloat16 with torch's products"
    assert measured.measured == ("bfloat16: 2.0 times as fast as float32 here (measured, 9 pairs)",)


def test_the_example_is_shown_in_the_words_of_its_clients_own_tokenizer(
    experiment_file: Path, tmp_path: Path
) -> None:
    save_llama(tmp_path / "other", ["Sentiment: Review:"] * 5)
    words = [
        f"clients={{silo-1: {{model: {{model_name_or_path: {tmp_path / 'other'}}}}}}}",
        f"data.public={write_lines(tmp_path / 'public.jsonl', reviews(8, seed=5))}",
        "algorithm=feddistill",
    ]
    preview = estimate.preview(load(experiment_file, words))
    text = "".join(piece for piece, _ in preview.example)
    assert text.startswith("Review: ") and "Sentiment:" in text
    mine, theirs = preview.lengths  # each client's rows in the tokens of its own model
    assert preview.lengths == {mine: ["silo-1"], theirs: ["silo-2", "silo-3"]}
    assert mine.mean > 1.5 * theirs.mean and mine.cut == theirs.cut == 0
