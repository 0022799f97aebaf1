"""Machines, processes and links that fail again and again: no round is lost, none counts twice.

The short ones are part of every test run; the long ones, by `make chaos`, keep their figures.
"""

import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from torch import Tensor

from chaos_proxy import Weather
from hanse.journal.checkpoints import checkpoints
from hanse.journal.run_folder import read_ledger, read_rounds
from hanse.planning.fedpipe import measured_links
from history import mean_of, model_of
from knocks import least_probability, share, share_by_chance
from patience import patience
from real_federation import (
    ALONE,
    SILOS,
    Federation,
    digest,
    federation,
    flower_of,
    simulated,
    with_memory,
)

pytestmark = pytest.mark.end_to_end
chaos = pytest.mark.chaos

Figures = Callable[..., None]
KILLS = 30
DEADLINE = 20.0
WAYS = "up", "down"
# Promised are 10 s from a restart to work, and 15 s until a silo is back, on a quiet machine. The
# bounds leave room for one that is busy; the figures say how long it took.
MOST_TO_THE_NEXT_ROUND = patience(60.0)
MOST_UNTIL_BACK = patience(30.0)
AWAY = 40.0  # seconds for which a server is not there
FIRST = 5.0  # seconds of these in which silos knock so often that they meet by chance


def _counted_once(made: Federation, rounds: int, silos: Sequence[str] = SILOS) -> None:
    """Each silo's update is in each round exactly once."""
    rows = read_rounds(made.run)
    assert [row.round for row in rows] == list(range(rounds + 1))
    assert all(row.clients == tuple(silos) for row in rows[1:])
    used = Counter(
        (row.round, row.client)
        for row in read_ledger(made.run)
        if row.kind == "train" and row.late is None and not row.error
    )
    assert set(used.values()) == {1}
    assert len(used) == rounds * len(silos)


def _saved(folder: Path) -> int:
    """The last round whose state is saved, which is what makes it count; before any, -1."""
    return max((int(file.name[:5]) for file in checkpoints(folder)), default=-1)


@pytest.mark.parametrize(
    ("silos", "rounds", "faults"),
    [(2, 3, 2), pytest.param(4, 20, 25, marks=[chaos, pytest.mark.timeout(1200)])],
)
def test_over_bad_links_each_update_counts_once(
    experiment_file: Path,
    review_file: Path,
    tmp_path: Path,
    figures: Figures,
    silos: int,
    rounds: int,
    faults: int,
) -> None:
    """Data come 0.2 s late; connections are reset, and cut off in the middle of a frame."""
    words, names = with_memory(f"rounds={rounds}", f"num_clients={silos}"), SILOS[:silos]
    expected = simulated(experiment_file, tmp_path / "simulated", *words)
    weather = Weather(delay=0.2, reset=0.02, cut=0.02, faults=faults)
    start = time.monotonic()
    with federation(tmp_path, experiment_file, review_file, *ALONE, *words) as made:
        made.server()
        for number, name in enumerate(names):
            port = made.proxy(f"link-{number}", weather, seed=number)
            made.silo(name, server=f"127.0.0.1:{port}")
        made.done(patience(1000))
        happened = sum(made.faults(f"link-{number}") for number in range(silos))
    assert happened >= faults
    assert digest(made.run) == expected
    _counted_once(made, rounds, names)
    figures("bad links", rounds=rounds, faults=happened, seconds=time.monotonic() - start)


@chaos
def test_a_probe_measures_links_of_known_rates(
    experiment_file: Path, review_file: Path, tmp_path: Path, figures: Figures
) -> None:
    probe = "algorithm={fedpipe: {probe: true}}", "rounds=10", "num_clients=2", "adapter.lora.r=32"
    links = {"silo-1": Weather(up=3e3, down=6e3), "silo-2": Weather(up=6e3, down=6e3)}
    with federation(tmp_path, experiment_file, review_file, *ALONE, *probe) as made:
        made.server()
        for number, (name, weather) in enumerate(links.items()):
            port = made.proxy(f"link-{number}", weather, seed=number)
            made.silo(name, server=f"127.0.0.1:{port}")
        made.done(patience(600))
    found = measured_links.measured(read_ledger(made.run))
    measured: dict[str, float] = {}
    for name, weather in links.items():
        ratios = {way: (getattr(found[name], way) or 0.0) / getattr(weather, way) for way in WAYS}
        measured |= {f"{way} of {name}": ratio for way, ratio in ratios.items()}
    figures("measured ÷ real rates of links", **measured)
    # Words of the engine travel beside the messages, and take a part of links as slow as these.
    assert all(0.4 <= ratio <= 1.3 for ratio in measured.values()), measured


@chaos
@pytest.mark.timeout(1800)
def test_a_server_killed_at_any_write_loses_no_round(
    experiment_file: Path, review_file: Path, tmp_path: Path, figures: Figures
) -> None:
    """At writes and renames drawn by seed, again and again, until it was killed so many times."""
    rounds = KILLS + 10  # it gets through about one between two kills
    words = with_memory(f"rounds={rounds}")
    expected = simulated(experiment_file, tmp_path / "simulated", *words)
    draw, kills, committed, back = random.Random(0), 0, -1, list[float]()
    with federation(tmp_path, experiment_file, review_file, *ALONE, *words) as made:
        for name in SILOS:
            made.silo(name)
        while kills < KILLS:
            begun = time.monotonic()
            server = made.server(dies_at=draw.randrange(1, 30))
            while server.code is None:
                saved = _saved(made.run)
                assert saved >= committed, "a committed round is gone"
                if saved > committed:
                    back.append(time.monotonic() - begun)
                    begun = time.monotonic()
                committed = saved
                time.sleep(0.05)
            assert server.code != 0, f"the run was over after {kills} kills"
            assert server.code == -signal.SIGKILL, made.said("server")
            kills += 1
        made.server()
        made.done()
    assert digest(made.run) == expected
    _counted_once(made, rounds)
    assert max(back) <= MOST_TO_THE_NEXT_ROUND
    figures(
        "server killed",
        kills=kills,
        rounds_lost=0,
        median_seconds_to_the_next_round=statistics.median(back),
        most_seconds_to_the_next_round=max(back),
    )


@chaos
@pytest.mark.timeout(900)
def test_a_server_that_stands_still_for_a_minute_loses_no_silo(
    experiment_file: Path, review_file: Path, tmp_path: Path, figures: Figures
) -> None:
    expected = simulated(experiment_file, tmp_path / "simulated", *with_memory("rounds=5"))
    with federation(
        tmp_path, experiment_file, review_file, *ALONE, *with_memory("rounds=5")
    ) as made:
        server = made.server()
        silos = [made.silo(name) for name in SILOS]
        made.hears("server", "round 2: validation")
        stopped = [server.number, *flower_of(made.run / "flower")]
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        time.sleep(60)
        rows = len(read_rounds(made.run))
        for process in stopped:
            os.kill(process, signal.SIGCONT)
        start = time.monotonic()
        while len(read_rounds(made.run)) == rows:
            assert time.monotonic() - start < patience(60), made.said("server")
            time.sleep(0.1)
        back = time.monotonic() - start
        assert back <= MOST_UNTIL_BACK
        made.done()
        assert [silo.code for silo in silos] == [None] * len(silos)
    assert digest(made.run) == expected
    figures("server stopped for 60 s", silos_lost=0, next_round_after_seconds=back)


@chaos
@pytest.mark.timeout(900)
def test_a_silo_that_dies_in_a_round_holds_up_nobody_for_longer_than_the_deadline(
    experiment_file: Path, review_file: Path, tmp_path: Path, figures: Figures
) -> None:
    plan = ["rounds=6", f"deployment.deadline={DEADLINE}", "deployment.quorum=3"]
    with federation(tmp_path, experiment_file, review_file, *ALONE[:2], *plan) as made:
        made.know_each_other(SILOS)
        made.server()
        for name in SILOS:
            made.silo(name)
        made.hears("server", "round 2: validation")
        made.kill("silo-3")
        made.hears("server", "round 3: validation")
        made.silo("silo-3")
        start, states = time.monotonic(), dict[int, bytes]()
        while made.said("server").count("silo-3 is there") < 2 or 3 not in states:
            assert time.monotonic() - start < MOST_UNTIL_BACK, made.said("server")
            states |= {int(file.name[:5]): file.read_bytes() for file in checkpoints(made.run)}
            time.sleep(0.1)
        back = time.monotonic() - start
        made.done()
    rows = read_rounds(made.run)
    assert rows[3].clients == ("silo-1", "silo-2", "silo-4")
    assert rows[-1].clients == tuple(SILOS)
    took = rows[3].time - rows[2].time
    assert took <= DEADLINE + patience(5)
    words = [*ALONE[:2], *plan]
    wanted = mean_of(experiment_file, tmp_path / "again", states[2], 3, rows[3].clients, *words)
    error = _relative_error(model_of(states[3]), wanted)
    assert error <= 1e-6
    figures(
        "silo killed",
        round_seconds=took,
        deadline=DEADLINE,
        back_after_seconds=back,
        error_of_the_survivors_mean=error,
    )


def _relative_error(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest difference, as a share of the largest value."""
    assert found.keys() == wanted.keys()
    differences = (found[name].double() - tensor for name, tensor in wanted.items())
    most = max(float(tensor.abs().max()) for tensor in wanted.values())
    return max(float(difference.abs().max()) for difference in differences) / most


@chaos
@pytest.mark.timeout(900)
def test_silos_that_wait_for_a_server_do_not_knock_in_step(
    experiment_file: Path, review_file: Path, tmp_path: Path, figures: Figures
) -> None:
    """All lose it at one moment; when it is back, they come one by one."""
    expected = simulated(experiment_file, tmp_path / "simulated", *with_memory("rounds=4"))
    with federation(
        tmp_path, experiment_file, review_file, *ALONE, *with_memory("rounds=4")
    ) as made:
        made.server()
        ports = {name: made.proxy(f"link-{name}", Weather()) for name in SILOS}
        silos = [made.silo(name, server=f"127.0.0.1:{port}") for name, port in ports.items()]
        made.hears("server", "round 2: validation")
        made.kill("server")
        gone = time.time()
        time.sleep(AWAY)
        knocks = {
            name: [at for at in made.visits(f"link-{name}") if at > gone + FIRST] for name in SILOS
        }
        made.server()
        start, rows = time.monotonic(), len(read_rounds(made.run))
        while len(read_rounds(made.run)) <= rows:
            assert time.monotonic() - start < MOST_TO_THE_NEXT_ROUND, made.said("server")
            time.sleep(0.1)
        back = time.monotonic() - start
        made.done()
        assert [silo.code for silo in silos] == [None] * len(silos)
    assert digest(made.run) == expected
    assert min(map(len, knocks.values())) >= 5
    in_step, by_chance = share(knocks), share_by_chance(knocks)
    assert in_step <= 0.2 + by_chance
    assert least_probability(knocks) >= 1e-6
    figures(
        "server away",
        seconds_away=AWAY,
        silos_lost=0,
        knocks=sum(map(len, knocks.values())),
        in_step=in_step,
        in_step_by_chance=by_chance,
        next_round_after_seconds=back,
    )
