"""FedOT: FedAvg bit for bit, with the trained tensors in other places for the whole model."""

from pathlib import Path

import pytest
import torch

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fedot import FedOT
from hanse.federation.interfaces.algorithm import Algorithm, Server
from hanse.randomness import RoundContext
from toy_learners import Toy, ToyLearner, points
from toys import Outcome, federate, held_out, silos


def go(folder: Path, algorithm: Algorithm) -> Outcome:
    return federate(algorithm, silos(3), folder, held_out(models={"whole": 0}))


def test_it_is_fedavg_and_the_whole_model_gets_the_same_tensors(tmp_path: Path) -> None:
    ours, plain = go(tmp_path / "ours", FedOT()), go(tmp_path / "plain", FedAvg())
    states = [outcome.server_state.algorithm_state for outcome in (ours, plain)]
    assert all(torch.equal(t, states[1]["model"][n]) for n, t in states[0]["model"].items())
    whole = FedOT().beside(states[0])["whole"]
    assert whole.keys() == states[0]["model"].keys()
    assert all(torch.equal(whole[n], t) for n, t in states[0]["model"].items())
    test = ours.records[-1].test
    own = {n: v for n, v in test.items() if not n.startswith("whole.")}
    assert own == plain.records[-1].test == {n: test[f"whole.{n}"] for n in own}


def test_names_of_other_places_are_kept_in_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ToyLearner, "names_in", lambda self, whole: {n: f"3.ö.{n}" for n in self.parameters()}
    )
    state = FedOT().init(server())
    whole = FedOT().beside(state)["whole"]
    assert whole.keys() == {f"3.ö.{name}" for name in state["model"]} != set()


def server(width: int = 0, hidden: int = 0) -> Server:
    """A server whose emulator and whole model have hidden layers of these widths; 0: none."""
    toy = Toy({"validation": points(1, 20)}, hidden=hidden, models={"whole": width})
    return Server(toy(RoundContext(0, 1), {}), 2, RoundContext(0, 1))


@pytest.mark.parametrize(
    ("width", "hidden", "sentence"),
    [
        (5, 0, "only one of them has inner"),
        (0, 5, "only one of them has inner"),
        (5, 4, r"inner is \(5, \d\) here and \(4, \d\) there"),
    ],
)
def test_a_whole_model_that_trains_other_tensors_is_refused(
    width: int, hidden: int, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        FedOT().init(server(width, hidden))
    FedOT().init(server(hidden, hidden))
