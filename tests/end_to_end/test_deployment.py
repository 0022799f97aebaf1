"""A server and silos as real processes on this machine, over Flower."""

import json
import urllib.request
from pathlib import Path

import pytest

from real_federation import ALONE, SILOS, digest, federation, free_port, simulated, with_memory

pytestmark = pytest.mark.end_to_end


def test_deployed_run_ends_in_the_adapter_of_the_simulated_one(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    words = with_memory()
    expected = simulated(experiment_file, tmp_path / "simulated", *words)
    with federation(tmp_path, experiment_file, review_file, *ALONE, *words) as made:
        made.server()
        for name in SILOS:
            made.silo(name)
        made.done()
        assert digest(made.run) == expected


def test_silos_that_are_known_by_keys_agree_and_end_in_the_same_adapter(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    expected = simulated(experiment_file, tmp_path / "simulated", "rounds=2")
    with federation(tmp_path, experiment_file, review_file, *ALONE, "rounds=2") as made:
        made.know_each_other(SILOS)
        ports = [free_port(), free_port()]
        made.server("--log-format", "json", "--status-port", str(ports[0]))
        made.silo("silo-1", words=["--status-port", str(ports[1])])
        for name in SILOS[1:]:
            made.silo(name)
        made.hears("server", "round 1: validation")
        seen = [_figures(port) for port in ports]
        made.done()
        assert digest(made.run) == expected
        lines = [json.loads(line) for line in made.said("server").splitlines() if line[0] == "{"]
    assert seen[0]["hanse_silo_connected"] == 4 and seen[0]["hanse_rounds"] == 2
    assert seen[1]["hanse_loads_total"] == 1  # whatever the number of rounds
    told = {(line["round"], line["silo"]) for line in lines if "answered train" in line["message"]}
    assert told == {(number, name) for number in (1, 2) for name in SILOS}
    assert len({line["run"] for line in lines} - {""}) == 1  # none while the server starts


def _figures(port: int) -> dict[str, float]:
    """The sums of metrics by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, float] = {}
    for line in lines:
        if not line.startswith("#"):
            name, value = line.partition("{")[0].split()[0], float(line.rsplit(maxsplit=1)[1])
            found[name] = found.get(name, 0.0) + value
    return found
