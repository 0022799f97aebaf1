"""Write the figures of benchmarks/results/*.json into README and docs, between their markers."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cost_tables as cost
import distillation_tables as unequal
import owner_tables as owner
import plan_tables as plan
import privacy_tables as privacy
import quality_tables as quality
import robust_tables
import run_tables as run
import secagg_tables
import wire_tables as wire

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "quickstart": quality.quickstart,
    "baselines": quality.baselines,
    "comparison": quality.comparison,
    "adapters": quality.adapters,
    "learned_codec": quality.learned_codec,
    "wire": quality.wire,
    "overhead": cost.overhead,
    "logits": cost.logits,
    "low_rank": cost.low_rank,
    "precision": cost.precision,
    "profile_step": cost.profile_step,
    "prefix": cost.prefix,
    "batched_clients": cost.batched_clients,
    "busy_machine": cost.busy_machine,
    "small_clients": run.small_clients,
    "scale": cost.scale,
    "own_data": run.own_data,
    "speed": run.speed,
    "aggregation": cost.aggregation,
    "codec_speed": wire.codec_speed,
    "gpu": cost.gpu,
    "deployment": cost.deployed,
    "chaos": cost.chaos,
    "secagg": secagg_tables.secagg,
    "fedkseed": wire.fedkseed,
    "robust": robust_tables.robust,
    "token_alignment": run.token_alignment,
    "distillation": unequal.distillation,
    "offsite": owner.offsite,
    "emulator_costs": owner.emulator_costs,
    "emulator_alone": owner.emulator_alone,
    "ownership": owner.ownership,
    "edge": plan.edge,
    "planned": plan.planned,
    "planned_memory": plan.planned_memory,
    "step_prediction": plan.step_prediction,
    "privacy_price": privacy.privacy_price,
    "row_privacy": privacy.row_privacy,
}


def written(text: str) -> str:
    """A page's text with every table that it has made anew from its results."""
    for name, table in TABLES.items():
        if f"<!-- {name} -->" not in text:
            continue
        file = ROOT / "benchmarks" / "results" / f"{name}.json"
        if not file.exists():  # not measured yet
            continue
        result = json.loads(file.read_text())
        machine = result["machine"]
        threads = machine["threads"]
        where = " beside ".join(filter(None, (result.get("gpu"), machine["processor"])))
        source = (
            f"`{result['command']}` on {where}, {threads} thread"
            f"{'' if threads == '1' else 's'}, torch {result['versions']['torch']}."
        )
        block = "\n".join([f"<!-- {name} -->", *table(result), "", source, f"<!-- /{name} -->"])
        text = re.sub(f"<!-- {name} -->.*?<!-- /{name} -->", lambda _: block, text, flags=re.S)  # noqa: B023
    return text


if __name__ == "__main__":
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = written(before)
        page.write_text(after, encoding="utf-8")
        if before != after:
            sys.stdout.write(f"{page.relative_to(ROOT)} rewritten\n")
