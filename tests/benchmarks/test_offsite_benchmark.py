"""The benchmark of offsite tuning on a tiny job: its rows, and how they stand to each other."""

from pathlib import Path

import offsite
import pytest
from rates import Family

from samples import write_lines
from tiny_models import save_llama

DEPTH = 7
FAMILIES = [*offsite.FAMILIES.items()]
TINY = (
    *("rounds=1", "num_clients=2", "train.max_steps=2", "clients_per_pass=off", "data.test=20"),
    *("data.validation=20", "data.client_test=0", "model.bf16=false", "evaluation.tasks=null"),
)


@pytest.fixture
def runs(
    tmp_path: Path, experiment_file: Path, review_file: Path, monkeypatch: pytest.MonkeyPatch
) -> offsite.Runs:
    save_llama(tmp_path / "whole", layers=DEPTH)
    file = tmp_path / "offsite.yaml"
    lines = experiment_file.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("model:", "output_dir", "clients_per"))]
    file.write_text("\n".join([*kept, "algorithm: fedot", "models: {whole: {bf16: false}}", ""]))
    monkeypatch.setattr(offsite, "EXPERIMENT", file)
    monkeypatch.setattr(offsite, "DISTILLED", {"steps": 2, "batch_size": 2})
    families = {n: Family(1e-2, f.judges, beside=f.beside) for n, f in FAMILIES}
    monkeypatch.setattr(offsite, "FAMILIES", families)
    (tmp_path / "home").mkdir()
    write_lines(tmp_path / "home" / "owner.jsonl", [{"text": f"a film {n}"} for n in range(8)])
    return offsite.Runs(tmp_path / "home", TINY, str(tmp_path / "whole"), DEPTH)


def test_all_rows_of_two_emulators(runs: offsite.Runs) -> None:
    names = ["drop 0.5", "int8"]
    content = offsite.compare(names, runs, seeds=(1,), deals=(101,), workers=0)
    rows = content["rows"]
    assert [*rows] == [
        *(offsite.BASE, offsite.PARTIAL, offsite.FULL, "drop 0.5", "drop 0.5, plugged in"),
        *("int8", "int8, plugged in"),
    ]
    assert rows["int8, plugged in"].keys() >= {
        *("over_base", "over_partial", "over_full", "over_emulator")
    }
    assert "over_emulator" not in rows["int8"] and "over_base" not in rows["base"]
    assert rows["drop 0.5"]["loss"] != rows["drop 0.5, plugged in"]["loss"]
    assert content["emulators"]["drop 0.5"]["distillation"]["settings"]["steps"] == 2
    assert content["emulators"]["int8"]["distillation"] is None
    assert content["families"]["emulators"]["judges"] == ["drop 0.2", "drop 0.5"]
    assert {*content["emulators"]} == {"drop 0.2", "drop 0.5", "int8"}
    again = offsite.compare(names, runs, seeds=(1,), deals=(101,), workers=0)
    assert again["rows"] == rows


def test_an_emulator_of_other_settings_is_made_anew(
    runs: offsite.Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(drop: float, distilled: bool) -> int:
        offsite.make_emulators({"it": ({"layer_drop": {"drop": drop}}, distilled)}, runs)
        return (runs.emulator("it") / "emulator.json").stat().st_mtime_ns

    first = made(0.5, distilled=True)
    assert made(0.5, distilled=True) == first
    assert (second := made(0.7, distilled=True)) > first
    assert (third := made(0.7, distilled=False)) > second
    assert made(0.7, distilled=True) > third
    monkeypatch.setattr(offsite, "DISTILLED", {"steps": 3, "batch_size": 2})
    fourth = made(0.7, distilled=True)
    assert made(0.7, distilled=True) == fourth > third


def test_names_of_plugged_rows_lead_back_to_their_emulators() -> None:
    lines = {
        name: {"runs": [{"items": "0101"}]}
        for name in (offsite.BASE, "drop 0.5", offsite.plugged("drop 0.5"))
    }
    lines["drop 0.5"]["runs"] = [{"items": "0001"}]
    offsite.compared(lines)
    row = lines[offsite.plugged("drop 0.5")]
    assert row["over_emulator"]["by_item"][0] == 0.25  # type: ignore[call-overload]
    assert row["over_base"]["by_item"][0] == 0.0  # type: ignore[call-overload]
    assert "over_emulator" not in lines["drop 0.5"]


def test_every_emulator_is_in_one_part() -> None:
    assert sorted(name for part in offsite.PARTS.values() for name in part) == sorted(
        offsite.EMULATORS
    )
