"""Run and baselines folders as hanse leaves them, written by hand."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

EVIL = "<script>alert(1)</script>"
RUNGS = ("alone", "alone-longer", "federated", "centralised", "centralised-small-batch")


def record(number: int, **more: Any) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    seconds = {"training": 2.0 * bool(number), "serialization": 0.1, "aggregation": 0.1}
    size = {"down": 1_800_000 * bool(number), "up": 900_000 * bool(number)}
    costs = {"tokens_per_second": 100.0, "peak_memory": 2 * 10**9, "time": 1.7e9 + number}
    train = {"clients": ["a"], "train": {"loss": 1.0 / number}} if number else {}
    return {"round": number, **train, "bytes": size, "seconds": seconds, **costs, **more}


def run_folder(
    home: Path,
    rounds: list[dict[str, Any]],
    items: Mapping[int, list[float]] | None = None,
    client: str = "a",
    task: str = "classification",
    samples: Mapping[int, list[dict[str, str]]] | None = None,
    **settings: Any,
) -> Path:
    """A run folder with these records, and with test scores (and samples) by round."""
    values = {"name": "trial", "rounds": 2, "output_dir": None, "algorithm": {"fedavg": {}}}
    values |= {"model": {"model_name_or_path": "small"}} | settings
    (home / "scores").mkdir(parents=True)
    (home / "experiment.yaml").write_text(yaml.safe_dump(values))
    write_lines(home / "metrics.jsonl", rounds)
    sent = {"client": client, "kind": "train", "down": 1_800_000, "up": 900_000}
    ledger = [{"round": r["round"], **sent, "loss": 0.5, "tokens": 200.0} for r in rounds[1:]]
    if rounds[1:]:
        ledger.append({"round": 1, **sent, "up": 10, "error": f"{EVIL} is full"})
    write_lines(home / "ledger.jsonl", ledger)
    for number, each in (items or {}).items():
        mean = sum(each) / len(each)
        content = {"round": number, "metrics": {METRIC[task]: mean}, "items": each}
        content |= {"samples": samples[number]} if samples else {}
        (home / "scores" / f"test-{task}-{number:05d}.json").write_text(json.dumps(content))
    return home


METRIC = {"classification": "accuracy", "perplexity": "loss", "generation": "exact_match"}


def finished(home: Path, before: list[float], after: list[float], **more: Any) -> Path:
    """A run of two rounds with test scores at both ends."""
    scores = [{"accuracy": sum(i) / len(i), "accuracy_se": 0.01} for i in (before, after)]
    rounds = [
        record(0, validation={"accuracy": 0.5}, test=scores[0]),
        record(1, validation={"accuracy": 0.6}),
        record(2, validation={"accuracy": 0.7}, test=scores[1]),
    ]
    return run_folder(home, rounds, {0: before, 2: after}, **more)


def divided(home: Path, clients: Mapping[str, Mapping[str, int]], labels: Iterable[str]) -> None:
    """Add division.json."""
    shares = {name: {"train": dict(counts), "held": 5} for name, counts in clients.items()}
    content = {"labels": [*labels], "clients": shares, "validation": 20, "test": 30}
    (home / "division.json").write_text(json.dumps(content))


def baselines_folder(
    home: Path,
    values: Mapping[str, Mapping[str, list[float]]],
    seeds: tuple[int, ...] = (0, 1),
    **more: Any,
) -> Path:
    """A baseline comparison's folder; values by kind, by client ("" for all together), by seed."""
    home.mkdir(parents=True)
    (home / "baselines.yaml").write_text("name: trial\n")
    variants, summary = [], []
    for kind in RUNGS:
        for client, found in values.get(kind, {}).items():
            name = f"alone-{client}{kind.removeprefix('alone')}" if client else kind
            outcomes = [_outcome(seed, v, name) for seed, v in zip(seeds, found, strict=True)]
            variants.append(
                {
                    "name": name,
                    "kind": kind,
                    "client": client or None,
                    "what": kind,
                    "seeds": outcomes,
                }
            )
    means = {kind: _mean(clients) for kind, clients in values.items()}
    for name in ("base", *RUNGS):
        value = 0.5 if name == "base" else means.get(name)
        if value is not None and "federated" in means:
            against = {"value": value - means["federated"], "low": None, "high": None}
            if len(seeds) > 1:
                against |= {"low": against["value"] - 0.02, "high": against["value"] + 0.02}
            line = {"name": name, "what": f"trained {name}", "value": value, "steps": 8}
            line |= {"examples": 32, "low": None, "high": None, "against_federated": against}
            summary.append(line)
    clients = len(values.get("alone", {}))
    content = {"name": "trial", "metric": "accuracy", "higher_is_better": True, "clients": clients}
    content |= {"rounds": 2, "seeds": [*seeds], "test_items": 100, "variants": variants}
    content |= {"base": {"value": 0.5, "se": 0.05}, "summary": summary, "verdict": "It pays: so."}
    (home / "baselines.json").write_text(json.dumps(content | more))
    return home


def write_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as .jsonl."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _outcome(seed: int, value: float, name: str) -> dict[str, Any]:
    gain = {"gain": value - 0.5, "low": value - 0.6, "high": value - 0.4}
    effort = {"steps": 8, "examples": 32, "training_seconds": 3.0, "bytes": 10}
    return {
        "seed": seed,
        "value": value,
        **gain,
        **effort,
        "own": value,
        "run": f"seed-{seed}/{name}",
    }


def _mean(clients: Mapping[str, list[float]]) -> float:
    found = [value for values in clients.values() for value in values]
    return sum(found) / len(found)


def learned_digest(folder: Path) -> str:
    """The hash of what the server and the clients of a run have learned."""
    files = [f for part in ("adapter", "clients") for f in (folder / part).rglob("*.safetensors")]
    assert len(files) >= 4
    files.sort(key=lambda file: file.relative_to(folder))
    return hashlib.sha256(b"".join(map(Path.read_bytes, files))).hexdigest()
