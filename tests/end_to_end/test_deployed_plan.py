"""A plan of deployed silos, from what they tell in ordinary replies, inside their policies."""

from pathlib import Path

import pytest
import yaml

from hanse.deployment.silo.machine_figures import FILE
from hanse.experiment.loading import load
from hanse.journal.run_folder import read_ledger
from hanse.planning.devices.silo_figures import PREFIX
from hanse.planning.fedpipe import plan_from, plan_page
from hanse.planning.fedpipe.planned import Bounds
from hanse.tensors import json_text
from standing_federation import StandingFederation

pytestmark = pytest.mark.end_to_end


def test_silos_tell_of_their_machines_where_they_may_and_are_planned_by_it(
    standing: StandingFederation, experiment_file: Path, tmp_path: Path
) -> None:
    words = ["rounds=1", "evaluation.clients=false", f"data.path={standing.parts.data}"]
    probe = tmp_path / "probe"
    probing = "algorithm={fedpipe: {probe: true}}", "rounds=4"
    standing.begin(experiment_file, probe, *words, *probing)
    standing.done()
    trained = [r for r in read_ledger(probe) if r.kind == "train"]
    answers = {r.client: r.numbers for r in trained if r.round == 1}
    told = {name: [n for n in own if n.startswith(PREFIX)] for name, own in answers.items()}
    assert told["silo-1"] and told["silo-2"] and not told["silo-3"]
    for name in ("silo-1", "silo-2"):
        kept = json_text.parse_object((standing.parts.home / name / FILE).read_bytes())
        assert kept["numbers"] == {n: answers[name][n] for n in told[name]}
    assert "by policy.profile: refuse" in (
        standing.parts.home / "silo-3" / "refusals.jsonl"
    ).read_text(encoding="utf-8")
    experiment = load(experiment_file, [*words, "num_clients=3"])
    plan = plan_from.plan(experiment, Bounds(), probe)
    assert any(remark.startswith("silo-3: it sends no figures") for remark in plan.remarks)
    assert all(own.travel > 0 for own in plan.silos)  # links of all are timed, by the server
    out = tmp_path / "planned.yaml"
    out.write_text(plan_page.page(experiment_file, plan, anew=True), encoding="utf-8")
    expected = yaml.safe_load(out.read_text())["algorithm"]["fedpipe"]["expected_seconds"]
    assert expected.keys() == {"silo-1", "silo-2", "silo-3"}
    standing.begin(out, tmp_path / "planned")
    standing.done()
    assert (tmp_path / "planned" / "adapter" / "adapter_model.safetensors").is_file()
    wrong = tmp_path / "wrong"  # all silos take far longer than such a plan expects
    lies = ", ".join(f"{name}: 0.00001" for name in expected)
    standing.begin(
        out, wrong, "rounds=2", f"algorithm={{fedpipe: {{expected_seconds: {{{lies}}}}}}}"
    )
    standing.done()
    trained = [r for r in read_ledger(wrong) if r.kind == "train"]
    steps = {(r.client, r.round): r.numbers["steps"] for r in trained}
    for name in expected:
        assert steps[name, 1] > steps[name, 2] == 1
        assert f"after round 1, all steps of {name} take" in standing.parts.said("server")
