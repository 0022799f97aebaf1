"""`hanse init`: whatever data come, the experiment that is written runs as it is."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from hanse.errors import UserError
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.loading import load
from hanse.learners.models import model_files
from hanse.planning.first_experiment.data_summary import look
from hanse.planning.first_experiment.defaults import label_words, plan
from hanse.planning.first_experiment.start import start
from hanse.planning.first_experiment.yaml_page import COLUMN, scalar

WORDS = ("positive", "negative")
ODD = ("a: b", 'say "x"', "it's", "naïve – ü ☃", "line\nbreak", "# no comment", "{text}", "null")


def labelled(count: int) -> list[dict[str, Any]]:
    return [{"text": f"this film is number {n}", "label": WORDS[n % 2]} for n in range(count)]


def talk(n: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"What is {n}?"},
        {"role": "assistant", "content": f"It is number {n}."},
    ]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), buffer)
    return bytes(buffer.getvalue())


# name of the file → its content for so many rows, what is learned
FILES: dict[str, tuple[Callable[[int], bytes], str]] = {
    "labelled.jsonl": (lambda n: lines(labelled(n)), "classify"),
    "my reviews (2).csv": (lambda n: table(labelled(n), ","), "classify"),
    "labelled.tsv": (lambda n: table(labelled(n), "\t"), "classify"),
    "labelled.parquet": (lambda n: parquet(labelled(n)), "classify"),
    "stars.json": (
        lambda n: json.dumps([{"review": f"text {i}", "stars": i % 10 + 1} for i in range(n)])
        .encode(),
        "classify",
    ),
    "odd.jsonl": (
        lambda n: lines([{"text": f"text {i}", "label": ODD[i % len(ODD)]} for i in range(n)]),
        "classify",
    ),
    "tags.jsonl": (
        lambda n: lines([{"text": f"text {i}", "label": f"tag {i}"} for i in range(n)]), "sft",
    ),
    "headlines.jsonl": (
        lambda n: lines([{"text": f"text {i}", "label": f"headline {i} " * 9} for i in range(n)]),
        "sft",
    ),
    "chat.jsonl": (lambda n: lines([{"messages": talk(i)} for i in range(n)]), "sft"),
    "sharegpt.json": (
        lambda n: json.dumps([
            {"conversations": [{"from": "human", "value": f"hi {i}"},
                               {"from": "gpt", "value": f"hello {i}"}]} for i in range(n)
        ]).encode(),
        "sft",
    ),
    "alpaca.json": (
        lambda n: json.dumps([
            {"instruction": "Add.", "input": f"{i} and 1", "output": str(i + 1)} for i in range(n)
        ]).encode(),
        "sft",
    ),
    "answers.jsonl": (
        lambda n: lines([{"prompt": f"Q {i}? A:", "completion": f" {i}"} for i in range(n)]),
        "sft",
    ),
    "pairs.jsonl": (
        lambda n: lines([
            {"prompt": f"Q {i}?", "chosen": f"good {i}", "rejected": "bad"} for i in range(n)
        ]),
        "sft",
    ),
    "pairs-of-talks.jsonl": (
        lambda n: lines([
            {"chosen": talk(i), "rejected": [talk(i)[0], {"role": "assistant", "content": "?"}]}
            for i in range(n)
        ]),
        "sft",
    ),
    "texts.jsonl": (lambda n: lines([{"content": f"a text {i}"} for i in range(n)]), "sft"),
}  # fmt: skip


def ours(tiny: Path) -> list[str]:
    """What makes an experiment for a real model one for a tiny one."""
    return [f"model.model_name_or_path={tiny}", "model.bf16=false"]


@pytest.mark.parametrize("rows", [3, 50])
@pytest.mark.parametrize("name", FILES)
def test_what_is_written_runs(
    hanse, name: str, rows: int, tmp_path: Path, tiny_llama: Path
) -> None:
    content, objective = FILES[name]
    (tmp_path / name).write_bytes(content(rows))
    code, said, _ = hanse("init", "--from", name, "--silos", 3, "--out", "first try.yaml")
    assert code == 0, said
    assert "hanse check 'first try.yaml'" in said and f"{rows} rows" in said
    values = yaml.safe_load((tmp_path / "first try.yaml").read_text(encoding="utf-8"))
    assert values["objective"] == (objective if rows > 3 else values["objective"])
    code, said, _ = hanse("run", "first try.yaml", *ours(tiny_llama), "rounds=1")
    assert code == 0, said
    assert (tmp_path / "runs/first-try/adapter/adapter_model.safetensors").stat().st_size > 0


@pytest.mark.parametrize("rows", [3, 50])
def test_words_with_tags_are_for_an_encoder(
    hanse, rows: int, tmp_path: Path, tiny_bert: Path
) -> None:
    said = [
        {"tokens": ["number", str(n), "."], "tags": ["NN", f"odd {n}" if n % 9 else ":", "."]}
        for n in range(rows)
    ]
    (tmp_path / "words.jsonl").write_bytes(lines(said))
    code, told, _ = hanse("init", "--from", "words.jsonl", "--silos", 3)
    assert code == 0, told
    experiment = load(tmp_path / "words.yaml")
    assert experiment.model.model_name_or_path == "minilm-l6" and experiment.objective == "tag"
    assert set(experiment.data.labels) == {tag for row in said for tag in row["tags"]}
    code, told, _ = hanse("run", "words.yaml", *ours(tiny_bert), "rounds=1")
    assert code == 0, told


@pytest.mark.parametrize("name", ["labelled.parquet", "chat.jsonl"])
def test_a_large_file_is_checked(hanse, name: str, tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name][0](5000))
    assert hanse("init", "--from", name)[0] == 0
    [file] = tmp_path.glob("*.yaml")
    code, said, _ = hanse("check", file, *ours(tiny_llama))
    assert code == 0, said
    experiment = load(file)
    passes = (experiment.train.num_train_epochs or 1) * experiment.rounds
    assert experiment.num_clients == 4 and 0.05 < passes < 3


def test_a_folder_of_one_file_for_each_silo(hanse, tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / "hospitals").mkdir()
    for name, count in (("north", 9), ("south", 20), ("über see", 3)):
        (tmp_path / "hospitals" / f"{name}.csv").write_bytes(table(labelled(count), ","))
    code, said, _ = hanse("init", "--from", "hospitals")
    assert code == 0 and "3 silos (by file)" in said
    assert hanse("run", "hospitals.yaml", *ours(tiny_llama))[0] == 0
    divided = divide(load(tmp_path / "hospitals.yaml"))
    held = {name: {row.fields["file"] for row in rows} for name, rows in divided.train.items()}
    assert sorted(map(sorted, held.values())) == [["north"], ["south"], ["über see"]]


def test_every_file_may_be_a_silo_of_its_own(hanse, tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "north.jsonl").write_bytes(lines(labelled(30)))
    (tmp_path / "silo-1.csv").write_bytes(table(labelled(8), ","))
    (tmp_path / "deep" / "north.json").write_text(
        json.dumps([{"said": f"text {n}", "verdict": WORDS[n % 2]} for n in range(9)])
    )
    places = ("--from", "north.jsonl", "--from", "silo-1.csv", "--from", "deep/north.json")
    code, _, said = hanse("init", *places)
    assert code == 2 and "deep/north.json: entry 1" in said and "--columns" in said
    places = places[:4]
    code, _, said = hanse("init", *places, "--silos", 3)
    assert code == 2 and "names 2 paths" in said
    assert hanse("init", *places, "--from", "./north.jsonl")[0] == 0
    experiment = load(tmp_path / "silos.yaml")
    assert experiment.client_names == ["north", "north-2", "own-silo-1"]
    assert experiment.brings_own_data
    (tmp_path / "silos.yaml").unlink()
    assert hanse("init", *places)[0] == 0
    assert hanse("run", "silos.yaml", *ours(tiny_llama))[0] == 0
    divided = divide(load(tmp_path / "silos.yaml"))
    assert all(row.place.startswith("own-silo-1: ") for row in divided.train["own-silo-1"])


def test_a_column_with_as_many_values_as_silos_is_whose_rows_are(tmp_path: Path) -> None:
    rows = [
        {**row, "Hospital": "ABC"[n % 3], "age": n % 3, "topic": str(n % 4)}
        for n, row in enumerate(labelled(30))
    ]
    (tmp_path / "a.jsonl").write_bytes(lines(rows))
    found = look(str(tmp_path / "a.jsonl"), {})
    assert plan({"": found}, 3, model_files.DEFAULT).owner == "Hospital"
    assert (
        plan({"": found}, 4, model_files.DEFAULT).owner == "topic"
        and plan({"": found}, 2, model_files.DEFAULT).owner is None
    )
    found = look(str(tmp_path / "a.jsonl"), {"text": "text", "label": "topic"})
    assert (
        plan({"": found}, 4, model_files.DEFAULT).owner is None
    )  # whoever says what a row is about is no silo
    (tmp_path / "a.jsonl").write_bytes(lines([*rows, *labelled(1)]))  # one row has no hospital
    assert plan({"": look(str(tmp_path / "a.jsonl"), {})}, 3, model_files.DEFAULT).owner is None


def test_columns_may_be_named(hanse, tmp_path: Path, tiny_llama: Path) -> None:
    rows = [{"was: gesagt": f"Text {n}", "urteil": WORDS[n % 2]} for n in range(20)]
    (tmp_path / "a.jsonl").write_bytes(lines(rows))
    code, _, said = hanse("init", "--from", "a.jsonl")
    assert code == 2 and said.count("\n") == 1 and "a.jsonl:1" in said and "--columns" in said
    named = "{text: 'was: gesagt', label: urteil}"
    code, said, _ = hanse("init", "--from", "a.jsonl", "--columns", named)
    assert code == 0 and "text from 'was: gesagt'" in said, said
    assert load(tmp_path / "a.yaml").objective == "classify"
    assert hanse("check", "a.yaml", *ours(tiny_llama))[0] == 0


def test_a_file_may_have_any_name(hanse, tmp_path: Path) -> None:
    for name in (
        "~a.jsonl",
        "a\tb\x07: #'x' {y}.jsonl",
        "ü ☃.jsonl",
        "-x.jsonl",
        "2024.jsonl",
        "[1].jsonl",
    ):
        (tmp_path / name).write_bytes(lines(labelled(9)))
        out = f"{name}.yaml"
        code, said, _ = hanse("init", f"--from=./{name}", f"--out=./{out}", "--silos", 2)
        assert code == 0, said
        assert load(tmp_path / out).data.path == str(tmp_path / name)


def test_the_paths_work_from_any_folder(
    hanse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b.jsonl").write_bytes(lines(labelled(9)))
    assert hanse("init", "--from", "a b.jsonl", "--out", "made/of/a.yaml", "--silos", 2)[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(Path("../made/of/a.yaml")).data.path == str(tmp_path / "a b.jsonl")


def test_data_beside_the_experiment_moves_with_it(
    hanse, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths start from the experiment's folder, even if a package's data have the same name."""
    (tmp_path / "work" / "movie-reviews").mkdir(parents=True)
    (tmp_path / "work" / "a b.jsonl").write_bytes(lines(labelled(9)))
    (tmp_path / "work" / "movie-reviews" / "x.jsonl").write_bytes(lines(labelled(9)))
    shutil.copytree(tiny_llama, tmp_path / "work" / "models" / "tiny")
    words = ["--silos", 2, "--model", "work/models/tiny"]
    assert hanse("init", "--from", "work/a b.jsonl", "--out", "work/a.yaml", *words).code == 0
    assert hanse("init", "--from", "work/movie-reviews", "--out", "work/b.yaml", *words).code == 0
    assert hanse(
        "init", "--from", "work/a b.jsonl", "--from", "work/movie-reviews", "--out", "work/c.yaml"
    ).code == 0  # fmt: skip
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "work").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name, data in (("a", "a b.jsonl"), ("b", "movie-reviews")):
        experiment = load(moved / f"{name}.yaml")
        assert experiment.data.path == str(moved / data)
        assert experiment.model.model_name_or_path == str(moved / "models" / "tiny")
        assert str(tmp_path) not in (moved / f"{name}.yaml").read_text()
    paths = {over["data"]["path"] for over in load(moved / "c.yaml").clients.values()}
    assert paths == {str(moved / "a b.jsonl"), str(moved / "movie-reviews")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "a.jsonl", "--silos", "10"], "9 rows cannot be divided among 10 silos"),
        (["--from", "a.jsonl", "--silos", "0"], "--silos is 0; there must be at least one"),
        (["--from", "nowhere.jsonl"], "there is no data 'nowhere.jsonl'"),
        (["--from", "x" * 5000], "there is no data 'xxx"),
        (["--from", "a.jsonl", "--model", "smollm"], "there is no model 'smollm'"),
        (
            ["--from", "a.jsonl", "--out", "a.jsonl"],
            "a.jsonl exists already; name another file with",
        ),
        (["--from", "a.jsonl", "--columns", "text"], "--columns is 'text'; write {ours: theirs}"),
        (["--from", "a.jsonl", "--columns", "{a: ["], "write {ours: theirs}"),
        (["--from", "a.jsonl", "--columns", "{text: x}"], "data.columns takes text from 'x'"),
        (["--from", "empty.jsonl"], "empty.jsonl holds no rows"),
    ],
)
def test_what_cannot_be_begun_is_one_sentence(
    hanse, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(labelled(9)))
    (tmp_path / "empty.jsonl").touch()
    before = sorted(tmp_path.iterdir())
    code, _, err = hanse("init", *words)
    assert code == 2 and err.startswith("hanse: ") and said in err and err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_every_line_behind_a_sign_may_be_taken_instead(tmp_path: Path) -> None:
    """What is commented out is valid where it stands, in place of the line of the same key."""
    (tmp_path / "texts").mkdir()
    for name in ("a", "b"):
        (tmp_path / "texts" / name).mkdir()
        (tmp_path / "texts" / name / "one.jsonl").write_bytes(lines([{"text": "x"}, {"text": "y"}]))
    (tmp_path / "labelled.jsonl").write_bytes(lines(labelled(40)))
    (tmp_path / "chat.jsonl").write_bytes(FILES["chat.jsonl"][0](40))
    taken = 0
    for name in ("texts", "labelled.jsonl", "chat.jsonl"):
        file = tmp_path / f"{name}.yaml"
        start([str(tmp_path / name)], 2, model_files.DEFAULT, file, {})
        text = file.read_text()
        before = load(file)
        for line in text.splitlines():
            bare = line.replace("# ", "", 1)
            if not line.lstrip().startswith("# ") or not is_setting(bare):
                continue
            key = bare.partition(":")[0] + ":"
            others = [old for old in text.splitlines() if not old.startswith(key)]
            file.write_text("\n".join([bare if old == line else old for old in others]))
            assert load(file) != before, line
            taken += 1
    assert taken > 12


def is_setting(line: str) -> bool:
    """Whether a line is `key: value` in an experiment, and no prose and no example of clients."""
    key, colon, _ = line.strip().partition(": ")
    return bool(colon) and key.isidentifier() and key not in ("north", "south")


def test_held_out_rows_leave_every_silo_enough(tmp_path: Path) -> None:
    for sizes in ((1, 1, 1), (1, 1, 40), (2, 3, 4), (30, 1, 200), (5, 5, 5)):
        rows = [
            {"text": f"{silo} {n}", "label": WORDS[n % 2], "silo": f"s{silo}"}
            for silo, size in enumerate(sizes)
            for n in range(size)
        ]
        (tmp_path / "a.jsonl").write_bytes(lines(rows))
        file = tmp_path / "a.yaml"
        started = start([str(tmp_path / "a.jsonl")], 3, model_files.DEFAULT, file, {})
        assert started.plan.owner == "silo"
        divided = divide(load(file))
        kept = [len(divided.train[name]) + len(divided.held[name]) for name in divided.train]
        assert all(left >= size / 2 for left, size in zip(kept, sizes, strict=True))
        assert len(divided.test) == started.plan.held_out.test
        file.unlink()
    # Rows that all say the same cannot be held out at all.
    (tmp_path / "a.jsonl").write_bytes(lines(labelled(1) * 9))
    assert (
        start([str(tmp_path / "a.jsonl")], 3, model_files.DEFAULT, file, {}).plan.held_out.test == 0
    )


def test_label_words_cannot_begin_one_another() -> None:
    for labels in (["1", "10", "2"], ["good", "good.", "go;od"], ["a", "ab!", "a."], ["."]):
        words = list(label_words(labels).values())
        pairs = [(a, b) for a in words for b in words if a != b]
        assert not any(b.startswith(a) for a, b in pairs), words
        assert len(set(words)) == len(labels)
    assert label_words(["bad", "good"]) == {"bad": "bad", "good": "good"}


@pytest.mark.parametrize("value", [*ODD, "", "x" * 300, "\x00\u2028\x85", "- a", "1", "<<", "=", 3])
def test_a_scalar_reads_back_on_one_line(value: Any) -> None:
    text = f"key: {scalar(value)}\n{scalar(value)}: 1\n"
    assert len(text.splitlines()) == 2
    assert yaml.safe_load(text) == {"key": value, value: 1}


def test_the_page_is_aligned_and_not_too_wide(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(labelled(40)))
    start([str(tmp_path / "a.jsonl")], 2, model_files.DEFAULT, tmp_path / "a.yaml", {})
    for line in (tmp_path / "a.yaml").read_text().splitlines():
        assert len(line) <= 100 and line == line.rstrip() and "\t" not in line
        code, sign, _ = line.partition("  # ")
        if sign and code.strip():
            assert len(code) + 2 >= COLUMN or line[COLUMN] == "#", line


SPLITS = {"train": 60, "test": 9, "validation": 5}


@pytest.mark.parametrize("name", ["{}.jsonl", "{}-00000-of-00001.jsonl", "{}/part.jsonl"])
def test_files_named_after_splits_are_no_silos(
    tmp_path: Path, hanse: Callable[..., Any], tiny_llama: Path, name: str
) -> None:
    for split, count in SPLITS.items():
        file = tmp_path / "data" / name.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"text": f"{split} {n}", "label": WORDS[n % 2]} for n in range(count)]
        rows[0] |= {"label": "neutral"} if split == "test" else {}
        file.write_bytes(lines(rows))
    said = hanse("init", "--from", "data").out
    assert "classify, 4 silos, " in said and "9 rows for the test and 5 for validation" in said
    experiment = load(tmp_path / "data.yaml", ours(tiny_llama))
    assert experiment.default_names == ["silo-1", "silo-2", "silo-3", "silo-4"]
    assert str(experiment.data.test).endswith(name.format("test"))
    assert set(experiment.data.labels) == {*WORDS, "neutral"}, "all that are scored"
    found = divide(experiment)
    own = [row for rows in (*found.train.values(), *found.held.values()) for row in rows]
    parts = {"train": own, "test": found.test, "validation": found.validation}
    assert {split: len(rows) for split, rows in parts.items()} == SPLITS
    assert all(row.text.startswith(split) for split, rows in parts.items() for row in rows)


def test_pieces_of_a_training_file_are_no_silos(tmp_path: Path) -> None:
    for number in range(3):
        file = tmp_path / f"train-{number:05d}-of-00003.jsonl"
        file.write_bytes(lines([{"text": f"text {number} {n}"} for n in range(20)]))
    started = start([str(tmp_path)], None, model_files.DEFAULT, tmp_path / "e.yaml", {})
    assert (started.plan.silos, started.plan.owner, started.plan.rows) == (4, None, 60)


def test_silos_inside_a_training_folder_are_silos(tmp_path: Path) -> None:
    for split, count in SPLITS.items():
        for name in ("north", "south"):
            (tmp_path / "data" / split).mkdir(parents=True, exist_ok=True)
            rows = [{"text": f"{split} {name} {n}"} for n in range(count)]
            (tmp_path / "data" / split / f"{name}.jsonl").write_bytes(lines(rows))
    out = tmp_path / "e.yaml"
    started = start([str(tmp_path / "data")], None, model_files.DEFAULT, out, {})
    assert (started.plan.silos, started.plan.owner) == (2, "file")
    assert (started.plan.held_out.test, started.plan.held_out.validation, started.plan.rows) == (
        18,
        10,
        120,
    )
    again = [str(tmp_path / "data"), str(tmp_path / "data" / "train")]
    own = start(again, None, model_files.DEFAULT, tmp_path / "f.yaml", {}).sources
    said = "only files named for training are read, not those for test and validation."
    assert [list(source.remarks) for source in own.values()] == [[said], []]


def test_what_is_marked_as_bad_is_left_out_and_said(
    tmp_path: Path, hanse: Callable[..., Any], tiny_llama: Path
) -> None:
    good = [number % 8 != 3 for number in range(60)]
    rows = [{"prompt": f"Where is {n}?", "completion": "Here." if fine else "Go.", "label": fine}
            for n, fine in enumerate(good)]  # fmt: skip
    (tmp_path / "kto.jsonl").write_bytes(lines(rows))
    said = "8 of 60 rows of kto.jsonl are left out: label false marks a bad answer"
    assert said in hanse("init", "--from", "kto.jsonl").out
    file = tmp_path / "kto.yaml"
    assert f"  # {said}" in file.read_text()
    experiment = load(file, ours(tiny_llama))
    found = divide(experiment)
    train = [row for own in found.train.values() for row in own]
    assert {row.completion for row in [*train, *found.test]} == {"Here."} and not found.labels
    [remark] = found.remarks
    assert remark.endswith(
        "label false marks a bad answer, and only an objective for verdicts learns from it."
    )
    checked = hanse("check", file, *ours(tiny_llama))
    assert "8 of 60 rows of" in " ".join(checked.out.split())


def test_an_answer_beside_a_document_and_unused_columns_are_said(
    tmp_path: Path, hanse: Callable[..., Any]
) -> None:
    rows = [{"dialogue": f"Ann: {n}", "summary": f"Ann says {n}.", "id": n, "region": n % 3}
            for n in range(30)]  # fmt: skip
    (tmp_path / "samsum.jsonl").write_bytes(lines(rows))
    out = " ".join(hanse("init", "--from", "samsum.jsonl").out.split())
    said = (
        "dialogue is read as the question and summary as the answer to learn; data.columns: {text:"
    )
    assert said in out and "not used: id, region (data.columns takes" in out
    experiment = load(tmp_path / "samsum.yaml")
    assert experiment.data.columns == {"instruction": "dialogue", "output": "summary"}
    [remark] = divide(experiment).remarks
    assert "samsum.jsonl: not used: id, region (" in remark
    out = hanse("init", "--from", "samsum.jsonl", "--silos", "3", "--out", "by-region.yaml").out
    assert "3 silos (by region)" in out and "not used: id (" in out, "the owner is in use"


def test_several_labels_of_a_text_are_refused_until_a_column_is_named(tmp_path: Path) -> None:
    rows = [{"comment_text": f"t {n}", "toxic": n % 2, "insult": n % 3 // 2} for n in range(12)]
    file = tmp_path / "jigsaw.jsonl"
    file.write_bytes(lines(rows))
    said = (
        r"toxic, insult hold 0 or 1, .*columns: \{text: comment_text, label: toxic\} classifies by"
    )
    with pytest.raises(UserError, match=said):
        look(str(file), {})
    assert look(str(file), {"text": "comment_text", "label": "insult"}).rows[2].label == "1"
    assert look(str(file), {"text": "comment_text"}).rows[0].kind == "text"


def test_a_preference_is_refused_only_where_nothing_can_be_learned(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([{"chosen": "a", "rejected": "b"}] * 4))
    found = look(str(tmp_path / "a.jsonl"), {})
    assert found.rows[0].text == "a" and "preferences" in found.remarks[0]
    with pytest.raises(UserError, match="4 rows cannot be divided among 5 silos"):
        plan({"": found}, 5, model_files.DEFAULT)
