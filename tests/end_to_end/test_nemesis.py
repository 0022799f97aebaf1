"""Random faults by seed on real federations; afterwards the run folder must tell a clean history.

Several federations are at work at a time, since they wait more than they compute.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from history import History, replayed
from nemesis import Nemesis
from patience import patience
from real_federation import SILOS, digest, federation

pytestmark = [pytest.mark.end_to_end, pytest.mark.chaos]

SEEDS = int(os.environ.get("CHAOS_SEEDS", "20"))
AT_ONCE = 4
OVER = object()
BOUND = patience(600.0)  # seconds for all seeds
STORM = 15.0  # seconds of faults
PATIENCE = patience(150.0)  # seconds for a run to end once all is calm
ROUNDS, QUORUM, NAMES = 6, 2, SILOS[:3]
WORDS = [
    *("num_clients=3", "clients_per_pass=off", f"rounds={ROUNDS}", "evaluation.clients=false"),
    *("deployment.deadline=10", f"deployment.quorum={QUORUM}"),
]


@dataclass
class Trial:
    """One federation under the faults of a seed; broken: the promises that it has not kept."""

    seed: int
    home: Path
    experiment: Path
    data: Path
    base: Path
    broken: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    done: bool = False  # whether it came to its end

    def run(self) -> Iterator[None]:
        """Go through it; yields while time passes."""
        with federation(self.home, self.experiment, self.data, *WORDS) as made:
            history = History(made.run, NAMES, QUORUM)
            nemesis = Nemesis(made, NAMES, self.seed)
            nemesis.begin()
            self.faults = nemesis.faults
            while history.last < 0:
                history.look()
                yield
            calm = time.monotonic() + STORM
            while time.monotonic() < calm and made.processes["server"].code is None:
                for _ in nemesis.strike():
                    history.look()
                    yield
            end = time.monotonic() + PATIENCE
            while made.processes["server"].code is None and time.monotonic() < end:
                history.look()
                yield
            self._judge(history, made.processes["server"].code, made.said("server"))

    def _judge(self, history: History, code: int | None, said: str) -> None:
        self.done, self.broken = True, history.judge(ROUNDS)
        if code != 0:
            self.broken.append(f"the server ended with {code}:\n{said[-2000:]}")
            return
        again = replayed(self.experiment, self.home / "again", history.counted(), *WORDS)
        if again != digest(history.folder):
            self.broken.append("the adapter is not that of the updates that were counted")
        _opens(history.folder / "adapter", self.base)


@pytest.mark.timeout(660)
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT
def test_under_random_faults_every_history_is_clean(
    experiment_file: Path,
    review_file: Path,
    tiny_llama: Path,
    tmp_path_factory: pytest.TempPathFactory,
    figures: Callable[..., None],
) -> None:
    begun = time.monotonic()
    trials = [
        Trial(
            seed, tmp_path_factory.mktemp(f"seed-{seed}"), experiment_file, review_file, tiny_llama
        )
        for seed in range(SEEDS)
    ]
    _tend(trials, begun + BOUND)
    ran = [trial for trial in trials if trial.done]
    broken = {trial.seed: trial.broken for trial in ran if trial.broken}
    faults = sum((trial.faults for trial in ran), Counter[str]())
    figures(
        "random faults",
        seeds=len(ran),
        faults=faults.total(),
        violations=sum(map(len, broken.values())),
        seconds=time.monotonic() - begun,
    )
    assert not broken, "\n".join(f"seed {seed}: {said}" for seed, said in broken.items())
    if len(ran) < SEEDS:
        pytest.skip(
            f"{BOUND:.0f} s were over: {len(ran)} of {SEEDS} seeds ran, none broke a promise"
        )


def _tend(trials: list[Trial], end: float) -> None:
    """Run trials, some at a time, until all are done or time is over."""
    waiting = iter(trials)
    at_work = [trial.run() for trial in islice(waiting, AT_ONCE)]
    while at_work and time.monotonic() < end:
        for run in [*at_work]:
            if next(run, OVER) is OVER:
                at_work.remove(run)
                at_work += [trial.run() for trial in islice(waiting, 1)]
        time.sleep(0.1)
    for run in at_work:
        run.close()


def _opens(folder: Path, base: Path) -> None:
    """PEFT itself opens an adapter on its base model, and it has changed something."""
    model = AutoModelForCausalLM.from_pretrained(base)
    opened = PeftModel.from_pretrained(model, str(folder))
    trained = [value for name, value in opened.named_parameters() if "lora_B" in name]
    assert trained and any(value.abs().max() > 0 for value in trained)
