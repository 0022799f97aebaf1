"""Runs deployed on a server and three silos that stay up, beside the same runs in one process."""

import json
import time
import urllib.request
from pathlib import Path

import pytest

from hanse.journal.run_folder import read_rounds
from patience import patience
from real_federation import digest, simulated
from standing_federation import THREE, StandingFederation
from zoo import words

# What these send or keep differs: memory of clients, one factor alone, layers that stay at home, a
# residual of the base model, another adapter, a second adapter of each client.
ALGORITHMS = ["scaffold", "rolora", "fedper", "fedex_lora", "fed_sb", "ditto"]

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_deployed_run_ends_in_the_adapter_of_the_simulated_one(
    standing: StandingFederation, experiment_file: Path, tmp_path: Path, algorithm: str
) -> None:
    own = words(algorithm, "rounds=2", "train.optimizer_state=keep")
    own += [f"data.path={standing.parts.data}", f"evaluation.clients={algorithm == 'scaffold'}"]
    expected = simulated(experiment_file, tmp_path / "simulated", *own, "num_clients=3")
    standing.begin(experiment_file, tmp_path / "deployed", *own)
    standing.done()
    assert digest(tmp_path / "deployed") == expected


def test_what_silos_and_the_server_say_of_a_run(
    standing: StandingFederation, experiment_file: Path, tmp_path: Path
) -> None:
    loads = _figures(standing.status_ports["silo-1"]).get("hanse_loads_total", 0)
    said = len(standing.parts.said("server"))
    standing.begin(
        experiment_file, tmp_path / "run", "rounds=3", f"data.path={standing.parts.data}"
    )
    end = time.monotonic() + patience(600)
    while not (tmp_path / "run").exists() or len(read_rounds(tmp_path / "run")) < 2:
        assert time.monotonic() < end, standing.parts.said("server")
        time.sleep(0.1)
    seen = {name: _figures(port) for name, port in standing.status_ports.items()}
    standing.done()
    assert seen["server"]["hanse_silo_connected"] == 3 and seen["server"]["hanse_rounds"] == 3
    assert seen["silo-1"]["hanse_loads_total"] == loads + 1  # whatever the number of rounds
    text = standing.parts.said("server")[said:]
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    told = {(line["round"], line["silo"]) for line in lines if "answered train" in line["message"]}
    assert told == {(number, name) for number in (1, 2, 3) for name in THREE}
    assert len({line["run"] for line in lines} - {""}) == 1  # none while the server starts


def _figures(port: int) -> dict[str, float]:
    """The sums of metrics by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=patience(30)) as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, float] = {}
    for line in lines:
        if not line.startswith("#"):
            name, value = line.partition("{")[0].split()[0], float(line.rsplit(maxsplit=1)[1])
            found[name] = found.get(name, 0.0) + value
    return found
