"""The report is one whole page, says what was found and no more, and escapes what it shows."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from folders import EVIL, divided, finished, record, run_folder
from hanse.errors import UserError
from hanse.experiment.assembly import execute
from hanse.journal import record_files
from hanse.journal.records import EnvironmentRecord
from hanse.observability.paired_timing import Comparison, Measurement
from hanse.reports.run.page import figure, write_report
from hanse.reports.run.quality_plots import interval

VOID = {"meta", "br", "path", "use", "rect", "line"}


class Page(HTMLParser):
    """Every tag with its attributes; complains if tags do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def words(file: Path) -> str:
    """A page's text on one line, pictures and style left out."""
    text = re.sub(r"<(svg|style).*?</\1>", "", file.read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def test_a_clear_gain_is_told_with_its_interval(tmp_path: Path) -> None:
    before, after = [1.0] * 700 + [0.0] * 300, [1.0] * 800 + [0.0] * 200
    text = words(write_report(finished(tmp_path / "run", before, after)))
    assert (
        "Accuracy on 1,000 held-out examples rose from 70.0 % to 80.0 %: "
        "+10.0 points, 95 % interval [+8.3, +12.0], paired." in text
    )
    assert "no clear change" not in text and "not finished" not in text
    assert "3.6 MB" in text and "1.8 MB" in text and "2 GB" in text
    assert "hanse run" in text and "PeftModel.from_pretrained" in text
    assert "2 of 2" in text  # rounds: the client was asked again for one whose answer was an error


def test_chance_and_harm_are_called_so(tmp_path: Path) -> None:
    chance = words(
        write_report(finished(tmp_path / "1", [1.0, 0.0] * 50, [0.0, 1.0] * 49 + [1, 1]))
    )
    assert "no clear change: the interval includes 0" in chance
    harm = words(write_report(finished(tmp_path / "2", [1.0] * 100, [1.0] * 50 + [0.0] * 50)))
    assert "fell from 100.0 % to 50.0 %: \N{MINUS SIGN}50.0 points" in harm
    assert "worse than before training" in harm


def test_a_lower_loss_is_better(tmp_path: Path) -> None:
    rounds = [record(0, test={"loss": 2.0}), record(2, test={"loss": 1.5})]
    items = {0: [2.0, 2.2, 1.8], 2: [1.5, 1.6, 1.4]}
    text = words(write_report(run_folder(tmp_path / "run", rounds, items, task="perplexity")))
    assert "Loss on 3 held-out examples fell from 2 to 1.5: \N{MINUS SIGN}0.5," in text
    assert "worse" not in text


def test_codecs_and_mechanism_are_named(tmp_path: Path) -> None:
    compression = {"upload": [{"bf16": {}}], "error_feedback": True}
    folder = finished(
        tmp_path / "run", [0.0] * 9, [1.0] * 9, compression=compression, privacy={"clip": {}}
    )
    page = words(write_report(folder))
    assert "encoded: updates by bf16, with error feedback; mechanism of privacy: clip" in page
    assert "encoded" not in words(write_report(finished(tmp_path / "plain", [0.0] * 9, [1.0] * 9)))


def test_it_needs_nothing_else(tmp_path: Path) -> None:
    file = write_report(finished(tmp_path / "run", [0.0, 1.0], [1.0, 1.0]))
    page = Page(file.read_text())
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(tags)
    assert tags.count("svg") == 4  # quality, loss, bytes, time
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert name != "src" and "//" not in (value or ""), (name, value)
            assert not name.startswith("on")
            if name.endswith("href"):
                assert (value or "").startswith("#")
    assert not re.search(r"@import|url\((?!#)", file.read_text())
    assert 'name="viewport"' in file.read_text()
    assert len(file.read_bytes()) < 100_000


def test_the_same_journal_gives_the_same_bytes(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [0.0, 1.0], [1.0, 1.0])
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_what_users_write_is_escaped(tmp_path: Path) -> None:
    model = {"model_name_or_path": EVIL}
    run = finished(tmp_path / EVIL[:8], [0.0, 1.0], [1.0, 1.0], client=EVIL, name=EVIL, model=model)
    text = write_report(run).read_text()
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 5  # title, heading, model, client, error, settings


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        ([], "no round is done"),
        ([record(0)], "round 0 of 2 is done"),
        ([record(0, test={"accuracy": 0.5}), record(1)], "round 1 of 2 is done"),
    ],
)
def test_an_unfinished_run_says_so(tmp_path: Path, rounds: list[Any], said: str) -> None:
    text = words(write_report(run_folder(tmp_path / "run", rounds, {0: [1.0, 0.0]})))
    assert "This run is not finished" in text and said in text
    assert "Nothing has been scored" in text
    assert "The adapter is written when the run ends" in text


def test_without_a_test_split_validation_is_told(tmp_path: Path) -> None:
    rounds = [record(n, validation={"accuracy": 0.5 + n / 10}) for n in range(3)]
    text = words(write_report(run_folder(tmp_path / "run", rounds)))
    assert "Validation accuracy: 50.0 % at first, 70.0 % at last." in text
    assert "no interval" in text and "Test scores" not in text


def test_scores_that_are_no_numbers_do_not_stop_it(tmp_path: Path) -> None:
    nan = float("nan")
    rounds = [record(0, test={"loss": 2.0}), record(2, test={"loss": nan}, train={"loss": nan})]
    run = run_folder(tmp_path / "run", rounds, {0: [2.0, 2.0], 2: [nan, nan]}, task="perplexity")
    assert "cannot be compared" in words(write_report(run))


def test_clients_own_scores_are_in_the_table(tmp_path: Path) -> None:
    own = {"a": {"accuracy": 0.25, "loss": 3.5, "seconds": 1.0}}
    run = run_folder(
        tmp_path, [record(0), record(2, validation={"accuracy": 1.0}, client_test=own)]
    )
    scored = {"round": 2, "client": "a", "kind": "evaluate", "down": 5, "up": 5, "weight": 13.0}
    with (run / "ledger.jsonl").open("a") as file:
        file.write(json.dumps(scored) + "\n")
    assert "25.0 % 3.5 13 " in words(write_report(run))


def test_a_figure_for_the_readme(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [0.0, 1.0], [1.0, 1.0])
    figure(run, tmp_path / "quality.png")
    figure(run, tmp_path / "quality.svg")
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "quality.svg").read_bytes()
    with pytest.raises(UserError, match=r"ends in \.png or \.svg"):
        figure(run, tmp_path / "quality.doc")
    with pytest.raises(UserError, match="no finished round"):
        figure(run_folder(tmp_path / "new", []), tmp_path / "quality.png")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"experiment\.yaml cannot be read"):
        write_report(tmp_path)


def test_plots_are_files_too(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [0.0, 1.0], [1.0, 1.0])
    divided(run, {"a": {"x": 3, "y": 9}}, ["x", "y"])
    write_report(run)
    left = {file.name for file in (run / "plots").iterdir()}
    names = ("quality", "loss", "partition", "bytes", "time")
    assert left == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}


@pytest.mark.parametrize("clients", [2, 50, 300])
@pytest.mark.parametrize("labels", [0, 2, 20])
def test_any_division_can_be_drawn(tmp_path: Path, clients: int, labels: int) -> None:
    names = [f"kind of row {number}" for number in range(labels)]
    counts = dict.fromkeys(names or ["rows"], 7)
    run = finished(tmp_path / "run", [0.0, 1.0], [1.0, 1.0])
    divided(run, {f"silo-{number:03d}": counts for number in range(clients)}, names)
    text = write_report(run).read_text()
    assert "silo-000" in text and f"silo-{clients - 1:03d}" in text
    assert ("kind of row 1" in text) == bool(labels)
    assert (f"50 of {clients} clients are shown" in text) == (clients == 300)
    assert "20 rows are held out for validation and 30 for the test" in words(run / "report.html")
    assert len(text) < 250_000


def test_what_the_model_said_before_and_after(tmp_path: Path) -> None:
    long = "Once upon a time " * 40
    samples = {
        round: [
            {"prompt": "2 + 2?", "answer": "four", "said": f"in round {round}"},
            {"prompt": f"{EVIL}?", "answer": "no", "said": long},
        ]
        for round in (0, 2)
    }
    tests = {"test": {"exact_match": 0.5}}
    rounds = [record(0, **tests), record(1), record(2, **tests)]
    items = {0: [0.0, 1.0], 2: [1.0, 1.0]}
    run = run_folder(tmp_path / "run", rounds, items, task="generation", samples=samples)
    text = write_report(run).read_text()
    assert "Exact match on 2 held-out examples rose from 50.0 % to 100.0 %" in words(
        run / "report.html"
    )
    for said in ("2 + 2?", "four", "in round 0", "in round 2"):
        assert said in text
    assert text.count('<details class="fold">') == 2
    assert "<script" not in text


def test_where_the_arithmetic_went(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [0.0, 1.0], [1.0, 1.0])
    speed = {"train_flops_per_token": 3e9, "forward_flops_per_token": 1e9, "peak_flops": 1e12}
    (run / "machine.json").write_text(json.dumps(speed))
    text = words(write_report(run))
    # Two rounds of 200 tokens in 4 s of training: 100 tokens/s, so 300 of 1,000 GFLOP/s.
    assert "takes 3 GFLOP a token" in text and "scoring 1 GFLOP" in text
    assert "took 1.2 TFLOP, at 300 GFLOP/s" in text
    assert "30 % of the 1 TFLOP/s" in text
    (run / "machine.json").write_text(json.dumps(speed | {"peak_flops": 1e11}))
    assert "other programs were at work" in words(write_report(run))


def test_the_choice_of_the_precision(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [0.0, 1.0], [1.0, 1.0])
    assert "The precision of" not in words(write_report(run))
    comparison = Comparison("float32", "bfloat16", (0.012, 0.006), 2.05, 1.9, 2.1, 9)
    record = EnvironmentRecord(
        measured={"tiny, bf16 auto, device cpu": Measurement((comparison,), 2, 0.5)}
    )
    record_files.write(run / "machine.json", record)
    assert (
        "The precision of tiny was chosen with 2 threads at a load of 0.5: bfloat16: 2.0 times as "
        "fast as float32 here (measured, 9 pairs) (float32 12 ms, bfloat16 6 ms)."
    ) in words(write_report(run))


def test_the_time_in_one_line(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [0.0, 1.0], [1.0, 1.0])
    # 2 of 3 rounds train for 2 s; 0.1 s of serialization and of aggregation in each of the three.
    assert "4.6 s in all: 87 % training, 6.5 % serialization" in words(write_report(run))


def test_gpu_figures_are_shown_where_there_are_any(tmp_path: Path) -> None:
    assert "GPU" not in words(write_report(finished(tmp_path / "cpu", [0.0, 1.0], [1.0, 1.0])))
    rounds = [record(n, gpu_memory=6e9 + n, gpu_use=0.5 + n / 10) for n in range(3)]
    text = words(write_report(run_folder(tmp_path / "gpu", rounds)))
    assert "Peak GPU memory 6 GB" in text and "busy in 60 % of the samples" in text


def test_a_run_scored_after_training_only(tmp_path: Path) -> None:
    rounds = [record(0), record(2, test={"accuracy": 0.75})]
    text = words(write_report(run_folder(tmp_path / "run", rounds, {2: [1.0, 1.0, 1.0, 0.0]})))
    assert "Test accuracy after training: 75.0 %." in text


def test_few_rows_have_wide_intervals() -> None:
    """Wilson's interval of n rights out of n begins at n / (n + z²), and ends at 1."""
    z = 1.959963984540054
    all_right = interval({"accuracy": 1.0, "accuracy_se": 0.0}, "accuracy", 2.0)
    assert all_right is not None
    assert (all_right.low, all_right.high) == pytest.approx((2 / (2 + z**2), 1.0))
    all_wrong = interval({"accuracy": 0.0}, "accuracy", 7.0)
    assert all_wrong is not None
    assert (all_wrong.low, all_wrong.high) == pytest.approx((0.0, z**2 / (7 + z**2)))
    loss = interval({"loss": 3.0, "loss_se": 0.5}, "loss", 2.0)
    assert loss is not None
    t = math.tan(0.475 * math.pi)  # Student's, with one degree of freedom
    assert (loss.low, loss.high) == pytest.approx((3 - t / 2, 3 + t / 2))
    assert interval({"loss": 3.0}, "loss", 9.0) is None
    assert interval({"accuracy": 1.0, "accuracy_se": 0.0}, "accuracy", None) is None


def test_no_change_on_few_rows_is_not_certain(tmp_path: Path) -> None:
    """Tango's interval of no change in 12 pairs ends at z²/(12 + z²), which is 24.2 %."""
    items = [1.0, 0.0] * 6
    text = words(write_report(finished(tmp_path / "run", items, items)))
    assert "went from 50.0 % to 50.0 %: +0.0 points" in text
    assert "95 % interval [\N{MINUS SIGN}24.2, +24.2], paired." in text
    assert "no clear change: the interval includes 0" in text


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        ([2.0, 2.25, 1.75], "went from 2 to 2; no example changed."),
        ([1.5, 1.75, 1.25], "fell from 2 to 1.5; every example changed by the same amount."),
    ],
)
def test_a_loss_that_changes_equally_everywhere_has_no_interval(
    after: list[float], sentence: str, tmp_path: Path
) -> None:
    items = {0: [2.0, 2.25, 1.75], 2: after}
    rounds = [record(n, test={"loss": sum(each) / 3}) for n, each in items.items()]
    text = words(write_report(run_folder(tmp_path / "run", rounds, items, task="perplexity")))
    assert f"Loss on 3 held-out examples {sentence}" in text
    assert "Without a spread there is no interval." in text and "95 % interval" not in text


def test_a_report_does_not_make_a_run_finished(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", [record(0), record(1)])
    write_report(run)
    assert not execute.finished(run)
    (run / "adapter").mkdir()
    assert execute.finished(run)


def test_older_rows_losses_have_another_name(tmp_path: Path) -> None:
    """An earlier version kept each row's own mean loss, whose mean is not that of all tokens."""
    rounds = [record(0, test={"loss": 2.0}), record(2, test={"loss": 1.5})]
    items = {0: [2.0, 2.2, 1.8], 2: [1.5, 1.6, 1.4]}
    run = run_folder(tmp_path / "run", rounds, items, task="perplexity")
    for number, loss in ((0, 2.25), (2, 1.75)):
        file = run / "scores" / f"test-perplexity-{number:05d}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"metrics": {"loss": loss}}))
        if number == 0:
            assert "two versions of hanse computed them" in words(write_report(run))
    text = words(write_report(run))
    assert "Row mean loss on 3 held-out examples fell from 2 to 1.5: \N{MINUS SIGN}0.5," in text
    assert "worse" not in text
