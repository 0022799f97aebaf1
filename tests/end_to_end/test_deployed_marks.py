"""A silo that marks what it trains: deployed as simulated, to the last bit, and nothing travels.

It comes back with another key once, is refused by what it remembers itself, and returns.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from hanse.audit.ownership import key as owners
from hanse.audit.ownership.key import OwnershipKey
from real_federation import digest, simulated
from standing_federation import StandingFederation, allowed

pytestmark = pytest.mark.end_to_end

KEY = OwnershipKey("silo-1", "ab" * 32, triggers=4)
ADAPTER = "adapter={lora: {r: 8, target_modules: [q_proj, v_proj, o_proj]}}"


def test_a_marked_run_that_was_stopped_ends_as_the_simulated_one(
    standing: StandingFederation, experiment_file: Path, tmp_path: Path
) -> None:
    owners.write(file := tmp_path / "silo-1.key", KEY)
    owners.write(other := tmp_path / "other.key", replace(KEY, seed="cd" * 32))
    words = [ADAPTER, "aggregator=secagg", "data.client_test=0", "rounds=3", "train.max_steps=8"]
    words += [f"data.path={standing.parts.data}", "evaluation.clients=false"]
    own = f"clients.silo-1.ownership={{key: {file}}}"
    expected = simulated(experiment_file, tmp_path / "simulated", *words, own, "num_clients=3")
    plain = simulated(experiment_file, tmp_path / "plain", *words, "num_clients=3")
    folder = tmp_path / "deployed"
    standing.kill("silo-1")
    try:
        _marking(standing, file)
        standing.begin(experiment_file, folder, *words, falters=2)
        assert "the server falters" in (standing.trouble() or "")
        standing.kill("silo-1")
        _marking(standing, other)
        standing.begin(experiment_file, folder, *words)
        standing.parts.hears("silo-1", "ownership now names another one of silo-1")
        standing.kill("silo-1")
        _marking(standing, file)
        standing.done()
        assert "marks what it trains as silo-1's" in standing.parts.said("silo-1")
    finally:
        standing.kill("silo-1")
        standing.silo("silo-1")
    assert digest(folder) == expected != plain
    written = [place.read_bytes() for place in folder.rglob("*") if place.is_file()]
    assert written and not any(b"silo-1.key" in text or b"abababab" in text for text in written)


def _marking(standing: StandingFederation, key: Path) -> None:
    """Start the first silo with a key; its policy demands a mark."""
    policy = {**allowed(), "marks": "require"}
    rows = {"path": str(standing.parts.data)}
    standing.parts.silo("silo-1", data=rows, policy=policy, ownership={"key": str(key)})
