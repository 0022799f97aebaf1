"""The time of training that hanse check predicts."""

from pathlib import Path

import pytest

from hanse.experiment.assembly.assemble import SimulatedClient, Simulation, simulate
from hanse.experiment.loading import load
from hanse.federation.client import ClientEndpoint
from hanse.federation.exchange.round import open_round
from hanse.federation.messages import Request, Update
from hanse.federation.server import start
from hanse.journal.run_folder import Journal
from hanse.planning.preview import training_time
from hanse.planning.preview.training_time import Probe
from hanse.simulation.in_process import in_process
from samples import reviews, write_lines


def probed(simulation: Simulation, folder: Path) -> dict[str, Probe]:
    """The probes of a simulation's clients in its first round."""
    journal = Journal(folder)
    run = simulation.run(journal, in_process(simulation, journal.folder))
    profiles = {profile.name: profile for profile in simulation.profiles}
    exchange = open_round(run, 1, start(run, profiles), profiles)
    probes = training_time.probe_clients(simulation, exchange, folder)
    journal.close()
    return probes


@pytest.mark.parametrize(("epochs", "rounds"), [(1.0, 1), (0.5, 1), (2.0, 3)])
def test_known_rows_take_the_time_of_known_rows(
    experiment_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    epochs: float,
    rounds: int,
) -> None:
    """Two seconds a token that is read for the first time, half a second for one that is known."""
    probe = Probe(Update(), first=2.0, again=0.5)
    monkeypatch.setattr(training_time, "_probe", lambda *arguments: probe)
    words = ["train.max_steps=null", f"train.num_train_epochs={epochs}", f"rounds={rounds}"]
    words += ["train.per_device_train_batch_size=1", "data.client_test=0"]
    simulation = simulate(load(experiment_file, words))
    probes = probed(simulation, tmp_path)
    seconds = training_time.training_seconds(simulation, probes, rounds)
    wanted = 0.0
    for silo in simulation.clients.values():
        train = silo.examples["train"]
        tokens, passes = sum(map(len, train)), round(epochs * len(train)) / len(train) * rounds
        wanted += tokens * (2 * min(1, passes) + 0.5 * max(0, passes - 1))
    assert seconds == pytest.approx(wanted)


def test_clients_whose_settings_differ_in_data_alone_share_a_probe(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = []

    def probe(endpoint: ClientEndpoint, client: SimulatedClient, request: Request) -> Probe:
        paths.append(client.experiment.data.path)
        return Probe(Update(), first=2.0, again=0.5)

    monkeypatch.setattr(training_time, "_probe", probe)
    clients = {}
    for number in range(1, 5):
        rows = [{**row, "text": f"{row['text']} {'long ' * number}"} for row in reviews(10)]
        clients[f"own-{number}"] = {"path": write_lines(tmp_path / f"{number}.jsonl", rows)}
    settings = [f"clients.{name}.data.path={data['path']}" for name, data in clients.items()]
    settings += ["clients.own-1.data.client_test=0", "data.test=4", "data.validation=4"]
    for more, wanted in ([], ["4"]), (["clients.own-2.train.learning_rate=0.5"], ["4", "2"]):
        paths.clear()
        simulation = simulate(load(experiment_file, [*settings, *more]))
        probes = probed(simulation, tmp_path)
        assert sorted(Path(path).stem for path in paths) == sorted(wanted)
        assert list(probes) == list(clients)


@pytest.mark.parametrize(
    ("layers", "timed", "expected"),
    [
        ("[1]", (2.0, 0.5), (0.2, 0.05)),
        ("[1]", (20.0, 5.0), (2.0, 0.5)),
        ("[0, 1]", (2.0, 0.5), (0.05, 0.05)),
        ("[0, 1]", (20.0,), (2.0, 2.0)),
    ],
)
def test_the_first_time_of_rows_counts_only_if_their_layers_are_cached(
    experiment_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    layers: str,
    timed: tuple[float, ...],
    expected: tuple[float, float],
) -> None:
    """Otherwise new shapes are prepared in it, for which a long step needs no second time."""
    seconds = iter((1.0, *timed))  # of the warm-up, and of the steps that are timed

    def train(*_: object) -> Update:
        return Update(numbers={"seconds": next(seconds), "tokens": 10.0})

    monkeypatch.setattr(training_time, "_train", train)
    adapter = f"adapter={{lora: {{r: 2, layers_to_transform: {layers}}}}}"
    simulation = simulate(load(experiment_file, [adapter]))
    client = simulation.clients["silo-1"]
    endpoint, request = simulation.endpoint(tmp_path, "silo-1"), Request("train", Update())
    probe = training_time._probe(endpoint, client, request)
    assert (probe.first, probe.again) == expected and not [*seconds]
