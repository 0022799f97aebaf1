"""The content of baselines.json, read from the folders of the finished runs."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from hanse.errors import UserError
from hanse.evaluation.metrics.confidence import Interval, paired, standard_error, student
from hanse.experiment.schema import Experiment, build_tasks
from hanse.journal.ledger import Row
from hanse.journal.round_costs import training
from hanse.journal.run_folder import read_scores, records
from hanse.simulation.baselines.variants import KINDS, Variant
from hanse.simulation.baselines.verdict import verdict

LOWER_IS_BETTER = ("loss", "perplexity")
BASE = "base"
WHAT = {BASE: "the model before any training", **KINDS}
ORDER = (BASE, "alone", "alone-longer", "federated", "centralised", "centralised-small-batch")


def figures(
    experiment: Experiment,
    seeds: Sequence[int],
    finished: Sequence[Variant],
    planned: int,
    home: Path,
) -> Row:
    """The content of baselines.json; an unfinished comparison has the figures of its finished runs.

    finished: a seed's federated variant stands before its others. planned: number of all variants.
    home: the baseline comparison's folder.
    A score is the mean of the test items' scores; a gain is a score minus the base model's.
    """
    content: Row = {"name": experiment.name, "metric": None, "higher_is_better": True}
    content |= {"clients": len(experiment.client_names), "rounds": experiment.rounds}
    content |= {"seeds": list(seeds), "done": len(finished), "planned": planned, "test_items": 0}
    content |= {BASE: None, "variants": [], "summary": []}
    if finished:
        task = next(iter(build_tasks(experiment)))
        federated = [variant for variant in finished if variant.kind == "federated"]
        scored = {variant.experiment.seed: _scores(variant, task, 0) for variant in federated}
        base = {seed: scores["items"] for seed, scores in scored.items()}
        values = {seed: statistics.fmean(items) for seed, items in base.items()}
        first = scored[finished[0].experiment.seed]
        metric = "accuracy" if "accuracy" in first["metrics"] else next(iter(first["metrics"]))
        content |= {"metric": metric, "higher_is_better": metric not in LOWER_IS_BETTER}
        content["test_items"] = len(first["items"])
        se = standard_error(first["items"]) if len(first["items"]) > 1 else None
        content[BASE] = {"value": statistics.fmean(values.values()), "se": se}
        content["variants"] = _variants(finished, task, metric, base, home)
        content["summary"] = _summary(content["variants"], values, content["clients"])
    content["verdict"] = verdict(content)
    return content


def _scores(variant: Variant, task: str, round: int) -> Row:
    """A run's scores on the test items; raises UserError if they are lost, or cannot be read."""
    try:
        return read_scores(variant.folder, f"test-{task}", round)
    except (FileNotFoundError, ValueError):
        raise UserError(
            f"the scores of the finished run {variant.folder} are lost or damaged; remove that "
            "folder and `hanse resume` the baseline comparison, which then runs it again."
        ) from None


def _variants(
    finished: Sequence[Variant], task: str, metric: str, base: dict[int, list[float]], home: Path
) -> list[Row]:
    """Each variant with its outcome by seed."""
    found: dict[str, Row] = {}
    for variant in finished:
        entry = {
            "name": variant.name,
            "kind": variant.kind,
            "client": variant.client,
            "what": variant.what,
        }
        row = found.setdefault(variant.name, {**entry, "seeds": []})
        items = _scores(variant, task, variant.experiment.rounds)["items"]
        gain = paired(items, base[variant.experiment.seed])
        outcome = {"seed": variant.experiment.seed, "value": statistics.fmean(items)}
        outcome |= {"gain": outcome["value"] - statistics.fmean(base[variant.experiment.seed])}
        outcome |= _bounds(gain) | _effort(variant) | {"own": _own(variant, metric)}
        row["seeds"].append({**outcome, "run": str(variant.folder.relative_to(home))})
    return list(found.values())


def _bounds(interval: Interval | None) -> Row:
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {"low": low, "high": high}


def _effort(variant: Variant) -> Row:
    """What training took. Only a federation sends anything: others train where the rows are."""
    rounds, ledger = records(variant.folder), records(variant.folder, "ledger")
    trained = [row for row in ledger if row["kind"] == "train" and "steps" in row]
    sent = variant.kind == "federated"
    return {
        "steps": round(sum(row["steps"] for row in trained)),
        "examples": round(sum(row["examples"] for row in trained)),
        "training_seconds": sum(training(row["seconds"]) for row in rounds),
        "bytes": sum(sum(row["bytes"].values()) for row in rounds) if sent else 0,
    }


def _own(variant: Variant, metric: str) -> float | None:
    """The score on the rows that the participants held out for themselves, over all these rows."""
    last = variant.experiment.rounds
    scored = records(variant.folder)[-1].get("client_test") or {}
    ledger = records(variant.folder, "ledger")
    asked = [row for row in ledger if (row["round"], row["kind"]) == (last, "evaluate")]
    weights = {row["client"]: row["weight"] for row in asked if row.get("weight")}
    if not scored or any(metric not in scored[name] for name in weights):
        return None
    total = sum(weights.values())
    return float(sum(scored[name][metric] * w for name, w in weights.items()) / total)


def _summary(variants: Sequence[Row], base: dict[int, float], clients: int) -> list[Row]:
    """One line for each kind of variant, a mean over seeds; a seed's silos alone count as one."""
    found = {BASE: {s: {"value": v, "steps": 0, "examples": 0} for s, v in base.items()}}
    for kind in KINDS:
        by_seed: dict[int, list[Row]] = {}
        for row in variants:
            for outcome in row["seeds"] if row["kind"] == kind else ():
                by_seed.setdefault(outcome["seed"], []).append(outcome)
        wanted = clients if kind.startswith("alone") else 1
        found[kind] = {s: _mean(some) for s, some in by_seed.items() if len(some) == wanted}
    lines = []
    for kind in ORDER:
        if not found[kind]:
            continue
        line = {"name": kind, "what": WHAT[kind], **_mean(list(found[kind].values()))}
        # The base model is the same with every seed.
        spread = None if kind == BASE else student([o["value"] for o in found[kind].values()])
        line |= _bounds(spread)
        both = found[kind].keys() & found["federated"].keys()
        differences = [
            found[kind][s]["value"] - found["federated"][s]["value"] for s in sorted(both)
        ]
        line["against_federated"] = {
            "value": statistics.fmean(differences),
            **_bounds(student(differences)),
        }
        lines.append(line)
    return lines


def _mean(outcomes: Sequence[Row]) -> Row:
    return {n: statistics.fmean(o[n] for o in outcomes) for n in ("value", "steps", "examples")}
