"""Who holds which rows is read once, together, and before anything is trained."""

from pathlib import Path
from typing import Any

import pytest

from hanse.data.example import IGNORED
from hanse.data.tokenization.token_cache import Rendering
from hanse.errors import UserError
from hanse.experiment.assembly import resources
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load, load_left
from hanse.simulation import run as simulation
from samples import reviews, write_lines


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of a rendering was given."""
    calls: list[int] = []
    render = Rendering.render

    def counted(self: Rendering, rows: Any) -> Any:
        calls.append(len(rows))
        return render(self, rows)

    monkeypatch.setattr(Rendering, "render", counted)
    return calls


@pytest.mark.parametrize("clients", [2, 40])
def test_all_clients_rows_are_tokenized_at_once(
    experiment_file: Path, asked: list[int], clients: int
) -> None:
    found = simulate(load(experiment_file, [f"num_clients={clients}", "data.partition=iid"]))
    assert asked == [160]
    held = [len(silo.examples[split]) for silo in found.clients.values() for split in silo.examples]
    assert sum(held) == 110 and len(held) == 2 * clients


def test_runs_that_follow_each_other_tokenize_a_row_once(
    experiment_file: Path, asked: list[int]
) -> None:
    machine = Resources()
    first = simulate(load(experiment_file, ["participants=[silo-2]"]), machine)
    alone = {split: list(some) for split, some in first.clients["silo-2"].examples.items()}
    for words in ([], ["data.pooled=true"], ["participants=[silo-1]"], ["seed=7"]):
        simulate(load(experiment_file, words), machine)
    assert sum(asked) == 160, "another seed deals the same rows"
    again = simulate(load(experiment_file, ["participants=[silo-2]"]), machine)
    found = again.clients["silo-2"].examples
    assert {split: list(found[split]) for split in found} == alone


def test_a_client_may_be_asked_in_its_own_way(experiment_file: Path) -> None:
    lines = "clients: {silo-2: {model: {max_length: 12}}}\n"
    experiment_file.write_text(experiment_file.read_text() + lines)
    found = simulate(load(experiment_file))
    longest = {name: max(map(len, silo.examples["train"])) for name, silo in found.clients.items()}
    assert longest["silo-2"] < 12 < min(longest["silo-1"], longest["silo-3"])
    training, held_out = found.dataset.remarks  # on its rows alone
    rows = found.clients["silo-2"].examples
    assert f"clients.silo-2.model.max_length (12) cuts {len(rows['train'])} of" in training
    assert f"of {len(rows['test'])} held-out rows" in held_out


def test_who_holds_all_rows_reads_each_as_its_owner_would(
    experiment_file: Path, tmp_path: Path
) -> None:
    lines = ["clients:\n"]
    for number, name in enumerate(("east", "north", "south")):
        file = write_lines(tmp_path / f"{name}.jsonl", reviews(40, seed=number))
        template = "" if name == "north" else ", template: 'What of this? {text}'"
        lines.append(f"  {name}: {{data: {{path: {file}{template}}}}}\n")
    experiment_file.write_text(experiment_file.read_text() + "".join(lines))
    together = simulate(load(experiment_file))
    pooled = simulate(load(experiment_file, ["data.pooled=true"])).clients["pooled"]
    for split in ("train", "test"):
        every = [e for silo in together.clients.values() for e in silo.examples[split]]
        assert list(pooled.examples[split]) == every


@pytest.mark.parametrize(
    ("row", "words", "said"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, ["objective=sft"], "holds a preference"),
        ({"text": "a"}, [], r"classify needs text and label, but .*:\d+ has text"),
        (
            {"text": "a", "label": "odd"},
            ["data.labels={a: b, c: d}"],
            "'odd' is not one of 'a', 'c'",
        ),
        ({"text": "a", "label": "only"}, [], "there is only 'only'"),
        (
            {"text": "a", "label": "odd"},
            ["data.template='{text} {text}'", "data.labels={odd: odd, even: even}"],
            "write {text} exactly once in it",
        ),
    ],
)
def test_what_no_model_could_read_is_refused_before_one_is_loaded(
    experiment_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    row: dict[str, str],
    words: list[str],
    said: str,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(resources, "load", never)
    first = next(iter(row))
    rows = [{**row, first: f"{row[first]} {number}"} for number in range(30)]
    file = write_lines(tmp_path / "odd.jsonl", rows)
    own = [f"data.path={file}", "data.partition=iid", "data.test=5", "data.validation=5"]
    with pytest.raises(UserError, match=said):
        simulate(load(experiment_file, [*own, *words]))


def test_what_a_model_cannot_read_is_refused_before_training(experiment_file: Path) -> None:
    words = [f"data.template='{'very ' * 40}{{text}}'", "model.max_length=40"]
    with pytest.raises(UserError, match=r"reviews\.jsonl:\d+: the template .* leave no room"):
        simulate(load(experiment_file, words))


def test_how_many_rows_lose_what_is_said(experiment_file: Path, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Film or plot?"}, {"role": "assistant", "content": "Plot"}]
    long = [{"messages": turns * (3 if n % 4 == 0 else 1)} for n in range(40)]
    system = [{"role": "system", "content": f"{n:02}"} for n in range(40)]
    rows = [{"messages": [first, *r["messages"]]} for first, r in zip(system, long, strict=True)]
    words = [f"data.path={write_lines(tmp_path / 'talks.jsonl', rows)}", "objective=sft"]
    words += ["data.test=8", "data.validation=0", "data.client_test=0", "data.partition=iid"]
    whole = simulate(load(experiment_file, words))
    assert not whole.dataset.remarks
    room = max(len(e) for s in whole.clients.values() for e in s.examples["train"]) - 1
    found = simulate(load(experiment_file, [*words, f"model.max_length={room}"]))
    trained = [row for own in found.dataset.train.values() for row in own]
    cut = [sum(len(row.messages) > 3 for row in some) for some in (trained, found.dataset.test)]
    assert sum(cut) == 10
    sizes = [[_tokens(run, split) for run in (whole, found)] for split in ("train", "test")]
    assert list(found.dataset.remarks) == [
        f"model.max_length ({room}) cuts {count} of {of} {what} rows and leaves out "
        f"{size - left:,} of {size:,} tokens ({100 * (1 - left / size):.1f} %): {count} lose "
        "earlier turns."
        for count, of, what, (size, left) in zip(
            cut, (32, 8), ("training", "held-out"), sizes, strict=True
        )
        if count
    ]


def _tokens(run: Simulation, split: str) -> int:
    """The number of tokens of all training rows, or of the server's test rows."""
    learners = [client.learner for client in run.clients.values()]
    return sum(
        len(example)
        for learner in (learners if split == "train" else [run.learner])
        for example in learner.examples(split)
    )


@pytest.fixture
def book_experiment(tmp_path: Path, tiny_llama: Path) -> Path:
    """Two silos, each with one long text."""
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        text = " ".join(f"{name} word {number}" for number in range(400))
        (tmp_path / name / "book.txt").write_text(text)
    lines = [
        f"model: {{model_name_or_path: {tiny_llama}, max_length: 64}}",
        "adapter: {lora: {r: 2}}",
        "data: {test: 0, validation: 0, client_test: 0}",
        "objective: sft",
        "clients:",
        f"  north: {{data: {{path: {tmp_path / 'north'}}}}}",
        f"  south: {{data: {{path: {tmp_path / 'south'}}}}}",
    ]
    file = tmp_path / "book.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_all_of_a_book_is_learned_once_in_an_epoch(book_experiment: Path) -> None:
    windows, cut = (
        simulate(load(book_experiment, [f"model.long_texts={way}"])) for way in ("windows", "cut")
    )
    tokenizer = windows.learner.backbone.tokenizer
    all_tokens = 0
    for name in ("north", "south"):
        tokens = len(tokenizer((book_experiment.parent / name / "book.txt").read_text()).input_ids)
        all_tokens += tokens + 1  # with an end-of-text token
        examples = list(windows.clients[name].examples["train"])
        learned = sum(label != IGNORED for e in examples for label in e.labels[1:])
        assert tokens - 1 <= learned <= tokens + 1  # a first token and an end-of-text token
        assert len(examples) > tokens / 64 and max(map(len, examples)) <= 64
        assert [len(example) for example in cut.clients[name].examples["train"]] == [64]
    [remark] = [text for text in windows.dataset.remarks if "windows of texts" in text]
    assert "with model.long_texts: cut" in remark and "(model.max_length)" in remark
    [remark] = [text for text in cut.dataset.remarks if "max_length" in text]
    assert remark == (
        f"model.max_length (64) cuts 2 of 2 training rows and leaves out {all_tokens - 128:,} of "
        f"{all_tokens:,} tokens ({100 - 12800 / all_tokens:.1f} %): 2 lose the end of the text; "
        "model.long_texts: windows reads texts without a label whole."
    )


def test_the_run_of_a_former_version_cuts_its_texts(book_experiment: Path) -> None:
    """Its folder has a file without the setting."""
    folder = simulation.run(load(book_experiment, ["rounds=1"]))
    file = folder / "experiment.yaml"
    assert load_left(file).model.long_texts == "windows"
    assert "  long_texts: windows\n" in file.read_text()
    file.write_text(file.read_text().replace("  long_texts: windows\n", ""))
    assert load_left(file).model.long_texts == load(file).model.long_texts == "cut"
