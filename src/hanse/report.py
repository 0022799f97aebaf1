"""The report of a run: one HTML file that needs nothing else, made from the journal alone."""

import io
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hanse import __version__, settings, storage
from hanse.errors import UserError
from hanse.evaluation.intervals import Z95, paired
from hanse.journal import Row, read_scores, records

INK = "#1c2430"  # text and axes; in the page they take the page's own colour
STYLE = {
    "svg.fonttype": "none",  # text stays text: small, and set in the page's font
    "svg.hashsalt": "hanse",  # the same run gives the same bytes
    "text.parse_math": False,
    # Readable on light and dark, and by the colour-blind.
    "axes.prop_cycle": matplotlib.cycler(
        color=("#3b82c4", "#e08a2e", "#2f9e77", "#c4609a", "#8a7bd1", "#8b949e")
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.alpha": 0.15,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "grid.color"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}


def write_report(folder: Path) -> Path:
    """Write report.html into a run folder, which may be in progress; the file.

    Raises UserError if the folder holds no experiment.
    """
    values, text = settings.read(folder / "experiment.yaml")
    rounds, ledger = records(folder), records(folder, "ledger")
    template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    facts = _asked(folder, values, rounds) | _measured(folder, rounds) | _clients(rounds, ledger)
    page = environment.from_string(template).render(
        facts, version=__version__, settings=text, figures=_figures(rounds, ledger)
    )
    storage.write(folder / "report.html", page.encode())
    return folder / "report.html"


def figure(folder: Path, target: Path) -> None:
    """Draw a run's quality by round into a .png or .svg file."""
    if target.suffix not in (".png", ".svg"):
        raise UserError(f"a figure ends in .png or .svg, but {target} was asked for.")
    rounds, ledger = records(folder), records(folder, "ledger")
    if not rounds:
        raise UserError(f"{folder} has no round to draw yet.")
    storage.write(target, _draw(lambda f: _quality(f, rounds, ledger), 4.4, target.suffix[1:]))


def _asked(folder: Path, values: Row, rounds: list[Row]) -> Row:
    """What the run was meant to be, how far it is, and how to have it again."""
    done, planned = rounds[-1]["round"] if rounds else -1, values["rounds"]
    unfinished = f"This run is not finished: round {done} of {planned} is done."
    command = f"hanse run {shlex.quote(str(folder / 'experiment.yaml'))}"
    if values["output_dir"]:  # which this run has taken
        command += f" output_dir={shlex.quote(f'{folder}-again')}"
    at = datetime.fromtimestamp(rounds[-1]["time"], UTC) if rounds else None
    return {
        "name": values["name"],
        "base": values["model"]["model_name_or_path"],
        "algorithm": ", ".join(values["algorithm"]),
        "date": f"{at:%Y-%m-%d %H:%M} UTC" if at else "",
        "unfinished": "" if done >= planned else unfinished if rounds else "No round is done yet.",
        "command": command,
        "adapter": str(folder / "adapter"),
    }


def _measured(folder: Path, rounds: list[Row]) -> Row:
    """The sentences, numbers and tables on the run as a whole."""
    headline, remark = _headline(folder, rounds)
    tested = [row["test"] for row in rounds if "test" in row]
    before, after = (tested[0], tested[-1]) if len(tested) > 1 else ({}, {})
    tests = [(_label(n), _score(n, before[n]), _score(n, v), _change(n, v - before[n]))
             for n, v in after.items() if n in before]  # fmt: skip
    watched = list(next((row["validation"] for row in rounds if "validation" in row), {}))
    watched = [name for name in watched if not name.endswith("_se")]
    training = sum(row["seconds"]["training"] for row in rounds)
    tokens = sum(row["seconds"]["training"] * row["tokens_per_second"] for row in rounds)
    totals = (
        ("Work measured", _seconds(sum(sum(row["seconds"].values()) for row in rounds))),
        ("Sent to clients", _bytes(sum(row["bytes"]["down"] for row in rounds))),
        ("Sent by clients", _bytes(sum(row["bytes"]["up"] for row in rounds))),
        ("Training speed", f"{tokens / training:,.0f} tokens/s" if training else "–"),
        ("Peak memory", _bytes(max((row["peak_memory"] for row in rounds), default=0))),
    )
    table = [
        (row["round"], *(_score(name, row.get("validation", {}).get(name)) for name in watched),
         _score("loss", row.get("train", {}).get("loss")), len(row.get("clients", ())),
         _seconds(sum(row["seconds"].values())), f"{row['tokens_per_second']:,.0f}",
         _bytes(row["bytes"]["down"]), _bytes(row["bytes"]["up"]), _bytes(row["peak_memory"]))
        for row in rounds
    ]  # fmt: skip
    return {"headline": headline, "remark": remark, "tests": tests, "totals": totals,
            "watched": [_label(name) for name in watched], "rounds": table}  # fmt: skip


def _headline(folder: Path, rounds: list[Row]) -> tuple[str, str]:
    """What the run achieved in one sentence, and what must be said about it."""
    tested = [row["round"] for row in rounds if "test" in row]
    files = sorted((folder / "scores").glob(f"test-*-{tested[0]:05d}.json")) if tested else []
    if len(tested) < 2 or not files:
        seen = [(row["round"], row["validation"]) for row in rounds if "validation" in row]
        if not seen:
            return "Nothing has been scored.", ""
        (_, first), (last, now) = seen[0], seen[-1]
        name = next(iter(now))
        change = f"went from {_score(name, first.get(name))} to {_score(name, now[name])}"
        sentence = f"Validation {_label(name)} {change} by round {last}."
        return sentence, "No test split was scored before and after, so there is no interval."
    task = files[0].name[len("test-") : -len("-00000.json")]
    before, after = read_scores(folder, task, tested[0]), read_scores(folder, task, tested[-1])
    old, new = before["items"], after["items"]
    name = "accuracy" if "accuracy" in after["metrics"] else "loss"
    mean, change = sum(old) / len(old), (sum(new) - sum(old)) / len(old)
    verb = "rose" if change > 0 else "fell" if change < 0 else "stayed"
    sentence = (
        f"{'Accuracy' if name == 'accuracy' else 'Mean loss'} on {len(old):,} held-out examples "
        f"{verb} from {_score(name, mean)} to {_score(name, mean + change)}: {_change(name, change)}"
    )
    if len(old) < 2 or len(old) != len(new):
        return f"{sentence}.", "The items cannot be paired, so there is no interval."
    interval = paired(new, old)
    low, high = (_change(name, v).removesuffix(" points") for v in (interval.low, interval.high))
    remark = "The model is worse than before training." if (change > 0) == (name == "loss") else ""
    if interval.low <= 0 <= interval.high:
        remark = "The interval includes 0: this run shows no clear change; it may be chance."
    return f"{sentence}, 95 % interval [{low}, {high}], paired.", remark


def _clients(rounds: list[Row], ledger: list[Row]) -> Row:
    """The table of clients: what each was asked, answered, sent and scored."""
    tests = rounds[-1].get("client_test", {}) if rounds else {}
    own = [n for n in next(iter(tests.values()), {}) if n != "seconds" and not n.endswith("_se")]
    result = []
    for name in sorted({row["client"] for row in ledger}):
        rows = [row for row in ledger if row["client"] == name]
        asked = [row for row in rows if row["kind"] == "train"]
        answered = [row for row in asked if row["up"] and "error" not in row]
        losses = [row["loss"] for row in answered if "loss" in row]
        held = [row.get("weight", 0) for row in rows if row["kind"] == "evaluate"]
        result.append({
            "name": name, "asked": len(asked), "answered": len(answered),
            "down": _bytes(sum(row["down"] for row in rows)),
            "up": _bytes(sum(row["up"] for row in rows)),
            "loss": _score("loss", sum(losses) / len(losses) if losses else None),
            "scores": [_score(metric, tests.get(name, {}).get(metric)) for metric in own],
            "rows": f"{held[-1]:,.0f}" if held else "–",
            "errors": [f"Round {r['round']}: {r['error']}" for r in rows if "error" in r],
        })  # fmt: skip
    return {"clients": result, "own": [_label(name) for name in own]}


def _figures(rounds: list[Row], ledger: list[Row]) -> list[tuple[str, Markup, str]]:
    """Each figure with its title and what it shows."""
    if not rounds:
        return []
    shown = (
        ("Quality by round", 4.4, lambda f: _quality(f, rounds, ledger),
         "Above: the global model on held-out rows; the band is the 95 % interval of one score. "
         "Below: the loss that clients report from their training."),
        ("Bytes by round", 2.4, lambda f: _traffic(f, rounds),
         "What crossed the network, all clients together. If clients score the final model, the "
         "last round sends it to each of them once more."),
        ("Where the seconds went", 2.8, lambda f: _time(f, rounds),
         "Seconds of work, all clients together."),
    )  # fmt: skip
    return [(title, _inline(paint, tall, title), words) for title, tall, paint, words in shown]
