"""A comparison of runs: their scores, their costs, and the settings in which they differ."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hanse.errors import UserError
from hanse.evaluation.metrics.confidence import Interval, paired
from hanse.journal.baselines_records import BASELINES
from hanse.journal.records import Evaluation
from hanse.learners.models.settings import BaseModelSettings
from hanse.reports.run.costs import Costs, costs
from hanse.reports.run.quality_plots import interval
from hanse.reports.run.run_data import RunData, read

IGNORED = ("name", "output_dir")
PER_TOKEN = ("loss", "row_mean_loss")  # scores of tokens, which settings may leave out
# Settings that name a part, or a list of parts.
PARTS = ("algorithm", "aggregator", "objective", "partition", "privacy", "upload", "download")


@dataclass(frozen=True)
class Contender:
    """One run of a comparison.

    score, interval: of the comparison's metric after the last round that has it; None without.
    difference: to the first run over the same test items; None without.
    """

    name: str
    record: RunData
    costs: Costs
    score: float | None
    interval: Interval | None
    difference: Interval | None


@dataclass(frozen=True)
class Comparison:
    """Several runs, the first of which is what the others are compared with.

    metric, split: what all scores are of; "" if no two runs have a metric in common.
    unit: the metric of which the differences are. settings: by key, what each run has.
    remarks: why something is left out.
    """

    runs: tuple[Contender, ...]
    metric: str
    split: str
    unit: str
    settings: dict[str, tuple[str, ...]]
    remarks: tuple[str, ...]


def compare(folders: Sequence[Path]) -> Comparison:
    """A comparison of run folders; raises UserError if they are not two or more."""
    runs_data = [_read(folder) for folder in folders]
    if len(runs_data) < 2 or len({record.folder.resolve() for record in runs_data}) < len(
        runs_data
    ):
        raise UserError("a comparison takes two different runs or more; name their folders.")
    names = [record.folder.resolve().name for record in runs_data]
    if len(set(names)) < len(names):
        names = [str(record.folder) for record in runs_data]
    metric, split = _common(runs_data)
    remarks = [] if metric else [_nothing_common(names, runs_data)]
    first = _last(runs_data[0], metric)
    runs = []
    for name, record in zip(names, runs_data, strict=True):
        scores = _scores(record, metric, split)
        value = scores.get(metric)
        bounds = interval(scores, metric, record.rows(split)) if value is not None else None
        reason, difference = "", None
        if metric and value is None:
            remarks.append(f"{name} has no {split} score to show: {_standing(record, metric)}.")
        elif metric and record is not runs_data[0]:
            reason, difference = _difference(runs_data[0], record, metric)
            remarks += [f"{name} has no paired difference: {reason}."] if reason else []
        runs.append(Contender(name, record, costs(record), value, bounds, difference))
    unit = first.measured if first else ""
    settings = _otherwise([record.settings.values for record in runs_data])
    return Comparison(tuple(runs), metric, split, unit, settings, tuple(remarks))


def _read(folder: Path) -> RunData:
    if (folder / BASELINES).is_file():
        raise UserError(
            f"{folder} is a baseline comparison, which has a report of its own; name runs, such as "
            f"those in {folder / 'seed-…'}."
        )
    return read(folder)


def _common(runs_data: Sequence[RunData]) -> tuple[str, str]:
    """The metric and split that most runs have been scored with after training."""
    counts: dict[tuple[str, str], int] = {}
    for split in ("test", "validation"):
        for record in runs_data:
            names = {name for row in record.rounds if row.round for name in getattr(row, split)}
            ordered = [n for row in record.rounds for n in getattr(row, split)]
            for name in dict.fromkeys(ordered):
                if name in names and not name.endswith("_se"):
                    counts[name, split] = counts.get((name, split), 0) + 1
    shared = [key for key, count in counts.items() if count > 1]
    return max(shared, key=lambda key: (key[1] == "test", counts[key]), default=("", ""))


def _scores(record: RunData, metric: str, split: str) -> dict[str, float]:
    """The scores of the last round after training that has the metric."""
    for row in reversed(record.rounds):
        scores: dict[str, float] = getattr(row, split) if split else {}
        if row.round and metric in scores:
            return scores
    return {}


def _last(record: RunData, metric: str) -> Evaluation | None:
    """The items of the last test after training, of the task that has the metric."""
    for scored in record.tests.values():
        last = max(scored)
        if last > 0 and metric in scored[last].metrics:
            return scored[last]
    return None


def _difference(first: RunData, other: RunData, metric: str) -> tuple[str, Interval | None]:
    """The mean paired difference of two runs, or else the reason why they cannot be paired."""
    old, new = _last(first, metric), _last(other, metric)
    if old is None or new is None:
        return "not both were scored on their test rows after training", None
    if first.environment.data is None or other.environment.data is None:
        return "whether both have the same test rows is not known", None
    if _split(first) != _split(other) or len(old.items) != len(new.items):
        return "its test rows are others", None
    if len(old.items) < 2:
        return "one test row is too few", None
    if old.measured != new.measured:
        return f"its rows have a {new.measured}, those of the first run a {old.measured}", None
    if new.measured in PER_TOKEN and (setting := _other_tokens(first, other)):
        return f"its {new.measured} is of other tokens of the rows, since {setting} differs", None
    difference = paired(new.items, old.items)
    return "" if difference else "every test row differs by the same amount", difference


def _other_tokens(first: RunData, other: RunData) -> str:
    """The setting by which other tokens of the same rows are scored; "" if the tokens are the same.

    The length of examples matters only if a remark says that it cuts rows.
    """
    old, new = first.settings.scored_tokens, other.settings.scored_tokens
    divisions = [run.division for run in (first, other) if run.division]
    remarks = " ".join(remark for division in divisions for remark in division.remarks)
    changed = [key for key in old if key in new and old[key] != new[key]]
    return next(
        (key for key in changed if not key.startswith("model.") or "model.max_length" in remarks),
        "",
    )


def _split(record: RunData) -> tuple[Any, ...]:
    """Whatever determines the test rows: two runs with equal values have the same ones."""
    return (record.environment.data, *record.settings.split)


def _standing(record: RunData, metric: str) -> str:
    if not record.finished:
        return f"{max(0, record.done)} of {record.planned} rounds are done"
    return f"{metric} was not measured"


def _nothing_common(names: Sequence[str], runs_data: Sequence[RunData]) -> str:
    """A remark that lists each run's metrics, if no two runs have one in common."""
    metrics = []
    for name, record in zip(names, runs_data, strict=True):
        scored = [n for row in record.rounds for n in (*row.test, *row.validation)]
        kept = dict.fromkeys(n for n in scored if not n.endswith("_se"))
        metrics.append(f"{name} has {', '.join(kept) or 'no scores'}")
    return f"No scores after training can be compared: {'; '.join(metrics)}."


def _otherwise(values: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The settings in which runs differ, by dotted key."""
    flat = [_flat(_with_chosen_models(some, values)) for some in values]
    keys = dict.fromkeys(key for some in flat for key in some if key not in IGNORED)
    rows = {key: tuple(some.get(key, "–") for some in flat) for key in keys}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}


def _with_chosen_models(
    values: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A run's settings, of whose models beside the trained one only chosen ones are left.

    A model that all runs have keeps all of its settings, which are compared. values: the settings
    of the run. runs: those of all runs. A damaged file may have anything.
    """
    sections = [own if isinstance(own := run.get("models"), dict) else {} for run in runs]
    mine = own if isinstance(own := values.get("models"), dict) else {}
    models = {
        name: model if all(name in section for section in sections) else _chosen(model)
        for name, model in mine.items()
    }
    others = {key: value for key, value in values.items() if key != "models"}
    return {**others, **({"models": models} if models else {})}


def _chosen(model: Any) -> Any:
    """The settings of a model that are not the defaults, with its adapter by its name."""
    if not isinstance(model, dict):
        return model
    usual = {field.name: field.default for field in fields(BaseModelSettings)}
    adapter = model.get("adapter")
    brief = {**model, "adapter": " and ".join(adapter) if isinstance(adapter, dict) else "none"}
    return {
        key: value
        for key, value in brief.items()
        if key == "model_name_or_path" or key not in usual or value != usual[key]
    }


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Settings by dotted key; a part is one setting, with its own in brackets."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if key in PARTS and not isinstance(value, str):
            specs = value if isinstance(value, list) else [value] if value else []
            flat[f"{before}{key}"] = ", ".join(map(_parts, specs)) or "none"
        elif isinstance(value, dict) and value:
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _parts(spec: Any) -> str:
    """The parts in a spec as one would call them; a damaged file may have anything there."""
    if not isinstance(spec, dict):
        return str(spec)
    return ", ".join(_part(*chosen) for chosen in spec.items())


def _part(name: str, settings: Any) -> str:
    """A part as one would call it: fedprox(mu=0.1)."""
    chosen = settings.items() if isinstance(settings, dict) else ()
    inner = ", ".join(f"{key}={json.dumps(value)}" for key, value in chosen)
    return f"{name}({inner})" if inner else str(name)
