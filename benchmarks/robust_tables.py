"""Tables of docs/poison.md from results: lines of Markdown."""

import math
import statistics
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
CLEAN, MEAN = "none", "mean"
BORNE = 1.10  # times the loss of the mean without attackers


def robust(result: Row) -> list[str]:
    """Every rule against every attack, unlike silos, and the backdoor, as far as measured."""
    parts: dict[str, Callable[[Row], list[str]]] = {
        "attacks": _attacks,
        "unlike": _unlike,
        "backdoor": _backdoor,
    }
    tables = [table(result) for part, table in parts.items() if part in result]
    return [line for table in tables for line in ([""] if table is not tables[0] else []) + table]


def _attacks(result: Row) -> list[str]:
    """The loss of each rule under each attack over that of the mean without attackers."""
    rows, protocol = result["attacks"], result["protocol"]
    attacks = list(rows[MEAN])
    clean = rows[MEAN][CLEAN]
    lines = [
        f"| loss ÷ that of the mean without attackers; {protocol['hostile']} of "
        f"{protocol['silos']} silos hostile | " + " | ".join(["no attack", *attacks[1:]]) + " | "
        "largest | accuracy, without and at worst |",
        "|---" * (len(attacks) + 3) + "|",
    ]
    for rule, row in rows.items():
        over = [_over(row[attack], clean) for attack in attacks]
        accuracy = [row[attack].get("accuracy", math.nan) for attack in attacks]
        worst = min(accuracy, default=math.nan)
        lines.append(
            f"| {rule} | {' | '.join(map(_shown, over))} | {_shown(max(over))} "
            f"| {100 * accuracy[0]:.1f} %, {100 * worst:.1f} % |"
        )
    base, pooled = result["beside"]["base"], result["beside"]["centralised"]
    fails = sum(_over(rows[MEAN][attack], clean) > BORNE for attack in attacks[1:])
    return [
        *lines,
        "",
        f"Bold: more than {BORNE:.2f} times; the plain mean fails in {fails} of "
        f"{len(attacks) - 1} attacks. Means over {len(protocol['seeds'])} seeds, "
        f"{clean['test_items']:,} test reviews. The mean's loss is {clean['loss']:.3f}; all "
        f"reviews in one place, with as many updates, come to {pooled['loss']:.3f} and "
        f"{100 * pooled['accuracy']:.1f} %, the base model to {base['loss']:.3f} and "
        f"{100 * base['accuracy']:.1f} %.",
    ]


def _unlike(result: Row) -> list[str]:
    """Honest silos that rules leave out, where all are unlike each other."""
    rows = result["unlike"]
    lines = [
        "| Dirichlet 0.1, no attacker | loss ÷ the mean's | silos left out of a round "
        "| the silo that is left out most often, of its rounds | accuracy |",
        "|---|---|---|---|---|",
    ]
    for rule, row in rows.items():
        left_out = "–", "–"
        if row["excluded_share"]:
            left_out = f"{row['excluded_share']:.0%}", f"{row['excluded_most']:.0%}"
        lines.append(
            f"| {rule} | {_shown(_over(row, rows[MEAN]))} | {' | '.join(left_out)} "
            f"| {100 * row.get('accuracy', math.nan):.1f} % |"
        )
    return lines


def _backdoor(result: Row) -> list[str]:
    """The success of a trigger by rule."""
    rows = result["backdoor"]
    honest = next(iter(rows.values()))
    lines = [
        "| a backdoor by one of 8 silos "
        "| the trigger turns, of the bad reviews answered rightly, with each seed "
        "| loss without the trigger ÷ that with all honest | accuracy without it |",
        "|---|---|---|---|",
    ]
    for rule, row in rows.items():
        over = [
            own["validation_loss"] / other["validation_loss"]
            for own, other in zip(row["runs"], honest["runs"], strict=True)
        ]
        each = [run["success"] for run in row["runs"]]
        turned = ", ".join("none is right" if one is None else f"{100 * one:.0f} %" for one in each)
        lines.append(
            f"| {rule} | {turned} | {_shown(statistics.fmean(over))} "
            f"| {100 * row['accuracy']:.1f} % |"
        )
    return lines


def _over(row: Row, clean: Row) -> float:
    """The mean over seeds of a loss over that of the same seed without attackers."""
    pairs = zip(row["runs"], clean["runs"], strict=True)
    return statistics.fmean(
        math.inf if own["loss"] is None else own["loss"] / other["loss"] for own, other in pairs
    )


def _shown(over: float) -> str:
    """A ratio of losses, bold if the rule did not bear the attack."""
    text = "diverged" if math.isinf(over) else f"{over:.2f}" if over < 100 else f"{over:,.0f}"
    return f"**{text}**" if over > BORNE else text
