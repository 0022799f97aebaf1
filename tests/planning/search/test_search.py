"""A search by successive halving: resumed without repeating, scored by the silos alone."""

import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hanse.errors import StoppedError, UserError
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load
from hanse.federation.messages import Update
from hanse.journal.run_folder import read_rounds
from hanse.planning.search import preconditions, rungs, search_text, trial, winner, winner_page
from hanse.planning.search.search import Search, folder_of, search
from hanse.planning.search.settings import Wishes, settings
from hanse.planning.search.trial import DivergedError, SiloScore, scores_at
from samples import BAD, GOOD, Outcome, write_experiment

pytest.importorskip("optuna")

WISHES = Wishes("lora, ia3", "fedavg, fedprox", (1e-3, 1e-2), trials=5)
DIVERGED = 4  # the number of the trial that fails


@dataclass
class Watched:
    """What trials did: (trial, rung) in order, and the updates that silos answered with."""

    calls: list[tuple[str, int]] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    stops_at: int | None = None


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, review_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("search")
    rows = shutil.copy(review_file, folder / "rows.jsonl")
    written = write_experiment(folder, tiny_llama, rows)
    text = written.read_text(encoding="utf-8")
    written.write_text(f"# for the silos\n{text}seed: 3    # drawn\n", encoding="utf-8")
    return written


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    seen = Watched()

    def scored(experiment: object, rung: int, *others: object) -> Mapping[str, SiloScore]:
        name = Path(experiment.output_dir).name  # type: ignore[attr-defined]
        if len(seen.calls) == seen.stops_at:
            others[-1].set()  # type: ignore[attr-defined]
        else:
            seen.calls.append((name, rung))
        if name == f"trial-{DIVERGED:02d}":
            raise DivergedError("the model would hold values that are not finite")
        return scores_at(experiment, rung, *others)  # type: ignore[arg-type]

    opened = trial.open_round

    def watching(*parts: object) -> object:
        exchange = opened(*parts)  # type: ignore[arg-type]
        asked = exchange.evaluate
        exchange.evaluate = lambda: (  # type: ignore[method-assign]
            seen.updates.append(update) or (profile, update)  # type: ignore[func-returns-value]
            for profile, update in asked()
        )
        return exchange

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rungs, "scores_at", scored)
        patch.setattr(trial, "open_round", watching)
        yield seen


@pytest.fixture(scope="module")
def found(file: Path, watched: Watched) -> Search:
    """A search that was stopped in its third trial, and went on."""
    watched.stops_at = 2
    with pytest.raises(StoppedError, match=r"stopped in trial 3 of 5; the same command goes on"):
        search(load(file), WISHES)
    assert [rung for _, rung in watched.calls] == [1, 1]
    watched.stops_at = None
    return search(load(file), WISHES)


def test_a_resumed_search_repeats_no_trial(found: Search, watched: Watched, file: Path) -> None:
    first = [(f"trial-{number:02d}", 1) for number in range(1, 6)]
    assert watched.calls[:5] == first and len(watched.calls) == 5 + 2
    assert len(set(watched.calls)) == len(watched.calls)
    again = search(load(file), WISHES)
    assert len(watched.calls) == 7 and again.trials == found.trials


def test_the_halving_keeps_the_share_that_it_promises(found: Search) -> None:
    assert list(found.rungs) == [1, 3]
    states = [one.state for one in found.trials]
    assert states.count("complete") == 2 and states.count("pruned") == 2
    ends = sorted(one.score(1) for one in found.trials if one.state == "pruned")
    for one in found.trials:
        if one.state == "complete":
            value, loss = one.score(1)
            assert (value, -loss) >= (ends[-1][0], -ends[-1][1])
            assert one.rounds == 3 and len(read_rounds(_folder(found, one.number))) == 4
        if one.state == "pruned":
            assert one.rounds == 1 and len(read_rounds(_folder(found, one.number))) == 2


def test_a_trial_that_fails_says_why_and_the_others_go_on(found: Search) -> None:
    failed = next(one for one in found.trials if one.number + 1 == DIVERGED)
    assert failed.state == "fail" and "not finite" in failed.reason and not failed.scores
    assert "failed: the model would hold" in search_text.text(found, winner.winner(found))


def test_only_scores_leave_the_silos(found: Search, watched: Watched) -> None:
    assert watched.updates
    for update in watched.updates:
        assert not update.tensors and {"accuracy", "loss"} <= set(update.numbers)
    for one in found.trials:
        if one.scores:  # the server has scored nothing, neither before training nor after it
            for record in read_rounds(_folder(found, one.number)):
                assert not (record.test or record.validation or record.client_test)
    kept = (found.folder / "trials.log").read_text(encoding="utf-8")
    assert "accuracy" not in kept or not re.search("|".join((*GOOD, *BAD)), kept)


def test_scores_do_not_depend_on_a_stop(found: Search, tmp_path: Path) -> None:
    """A trial that is trained to its last rung at once has the scores of one that was continued."""
    best = winner.winner(found).trial
    experiment = trial.trial_of(found.experiment, best.setting, 3, tmp_path / "whole")
    whole = scores_at(experiment, 3, "accuracy", Resources(), threading.Event())
    assert whole == best.scores[3]


@pytest.mark.parametrize("anew", [False, True])
def test_the_choice_is_the_users_file_with_other_settings(
    found: Search, file: Path, anew: bool
) -> None:
    best = winner.winner(found)
    for one in found.trials[:4]:  # as if each had won
        choice = replace(best, trial=replace(one, scores=best.trial.scores))
        out = file.with_name(f"best-{one.number}-{anew}.yaml")
        winner_page.write(out, file, found, choice, anew)
        text = out.read_text(encoding="utf-8")
        assert "only scores have left" in text
        assert ("# for the silos" in text and "# drawn" in text) != anew
        wanted = trial.experiment_of(load(file), one.setting).resolved()
        assert {**load(out).resolved(), "name": ""} == {**wanted, "name": ""}


def test_other_settings_do_not_go_on_with_it(found: Search, file: Path) -> None:
    for wishes, words, said in (
        (WISHES, ["train.max_steps=2"], "another setting train"),
        (Wishes("lora", "fedavg", (1e-3,), 5), [], "another --adapters, --algorithms or --rates"),
        (Wishes(WISHES.adapters, WISHES.algorithms, WISHES.rates, 6), [], "another --trials"),
    ):
        with pytest.raises(UserError, match=f"{said}.* set another output_dir to search anew"):
            search(load(file, words), wishes)


def test_other_rows_do_not_go_on_with_it(found: Search, file: Path) -> None:
    rows = Path(load(file).data.path)
    before = rows.read_bytes()
    try:
        rows.write_bytes(before + b'{"text": "a further film", "label": "positive"}\n')
        with pytest.raises(UserError, match="another content of the data's files"):
            search(load(file), WISHES)
    finally:
        rows.write_bytes(before)


def test_a_damaged_file_of_trials_is_one_sentence(found: Search, file: Path) -> None:
    log = found.folder / "trials.log"
    shutil.copy(log, kept := log.with_name("kept"))
    log.write_text('{"op_code": 99}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"trials\.log cannot be read; bring it back"):
        search(load(file), WISHES)
    kept.replace(log)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.client_test=0"], "and data.client_test is 0; set it to a share of their rows"),
        (["evaluation.clients=false"], "evaluation.clients is false; set evaluation.clients=true"),
        (["aggregator=secagg"], "so no silo tells its scores, and hanse plan --search compares"),
        (["algorithm=fedkseed", "adapter=none"], "changes the model's weights in place"),
        (["--adapters", "bitfit,nothing"], "no learning rate for nothing"),
        (["--algorithms", "fedavgg"], "fedavg"),
        (["--rates", "much"], "--rates came with 'much'; write positive numbers"),
        (["--round-seconds", "3"], "--round-seconds says nothing to --search"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence_before_a_model_is_loaded(
    hanse: Callable[..., Outcome], experiment_file: Path, words: list[str], said: str
) -> None:
    nowhere = "model.model_name_or_path=owner/nowhere"
    outcome = hanse("plan", experiment_file, nowhere, *words, "--search")
    assert outcome.code == 2 and said in outcome.err, outcome.err
    assert outcome.err.count("hanse: ") == 1 and "Traceback" not in outcome.err
    assert not folder_of(load(experiment_file)).exists()


@pytest.mark.parametrize("place", [".", "..", "/"])
def test_a_search_beside_a_folder_without_a_name_is_one_sentence(
    hanse: Callable[..., Outcome], experiment_file: Path, place: str
) -> None:
    outcome = hanse("plan", experiment_file, f"output_dir={place}", "--search")
    assert outcome.code == 2 and f"output_dir is {place}, and a search lies beside" in outcome.err


def test_options_of_a_search_need_it(hanse: Callable[..., Outcome], experiment_file: Path) -> None:
    outcome = hanse("plan", experiment_file, "--rates", "1e-3")
    assert outcome.code == 2 and "--rates is an option of --search alone" in outcome.err


def test_silos_that_hold_out_no_row_are_named_and_refused_if_they_are_all() -> None:
    silent, scoring = (SimpleNamespace(examples=own) for own in ({}, {"test": ["a row"]}))
    both = SimpleNamespace(clients={"silo-1": silent, "silo-2": scoring})
    assert preconditions.refuse_silent(both) == ["silo-1"]  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"no silo has enough rows to hold one out"):
        preconditions.refuse_silent(SimpleNamespace(clients={"silo-1": silent}))  # type: ignore[arg-type]


def test_an_adapter_that_does_not_fit_is_left_out_with_the_reason(experiment_file: Path) -> None:
    experiment = load(experiment_file)
    every = settings(experiment, Wishes("lora, prompt_tuning", "fedavg, fedprox"))
    left, remarks = preconditions.fitting(experiment, every, Resources())
    assert {setting.adapter.label for setting in left} == {"lora"}
    assert len(remarks) == 1
    assert remarks[0].startswith("prompt_tuning with fedavg, fedprox is left out: the adapter puts")


def _folder(found: Search, number: int) -> Path:
    return found.folder / f"trial-{number + 1:02d}"
