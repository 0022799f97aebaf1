"""A ladder from its experiment to its finished folder, one ordinary run after the other.

ladder.yaml     the experiment of which all runs are derived, resolved
ladder.json     the seeds and the figures; written anew after each run
report.html     all of it at a glance
machine.json    threads, versions and the data's hash, as in a run folder
seed-<s>/       the run folders of one seed, by rung
"""

import json
import logging
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hanse import atomic_files
from hanse.errors import StoppedError, UserError
from hanse.experiment import loading
from hanse.experiment.assembly import execute
from hanse.experiment.assembly.federated_dataset import FederatedDataset
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.schema import Experiment
from hanse.journal import claims, environment, yaml_text
from hanse.observability.progress import report
from hanse.observability.steps import Runs
from hanse.reports.baselines.page import write_ladder_report
from hanse.simulation import run as simulation
from hanse.simulation.baselines.figures import figures
from hanse.simulation.baselines.variants import Rung, refuse, rungs

log = logging.getLogger(__name__)

DECIDED = {"output_dir", "cohort"}  # what a run settles for itself: where it is, and how it is done


@dataclass
class Ladder:
    """An experiment with its seeds, in its folder."""

    experiment: Experiment
    seeds: list[int]
    folder: Path
    held: Resources

    def rungs(self, seed: int) -> list[Rung]:
        """One seed's rungs; their lengths go by the division, which the seed draws."""
        own = self.experiment.model_copy(update={"seed": seed})
        sizes = {name: len(rows) for name, rows in self.held.division(own).train.items()}
        return rungs(self.experiment, sizes, seed, self.folder / f"seed-{seed}")

    @property
    def planned(self) -> int:
        """The number of all rungs."""
        return len(self.seeds) * (2 * len(self.experiment.client_names) + 3)

    def figures(self, finished: Sequence[Rung]) -> bytes:
        """The content of ladder.json."""
        found = figures(self.experiment, self.seeds, finished, self.planned, self.folder)
        return (json.dumps(found, indent=2) + "\n").encode()

    def note(self, finished: Sequence[Rung]) -> None:
        """Write the figures of all finished rungs down."""
        atomic_files.write(self.folder / "ladder.json", self.figures(finished))


def run(experiment: Experiment, seeds: Sequence[int]) -> Path:
    """Train every rung with every seed in a new folder; the folder, finished."""
    refuse(experiment)
    name = experiment.name if experiment.name.endswith("ladder") else f"{experiment.name}-ladder"
    with execute.reserved(experiment.output_dir, name) as claim:
        ladder = _begin(claim.folder, experiment, seeds)
    with closing(claim):
        return _climb(ladder)


def _begin(folder: Path, experiment: Experiment, seeds: Sequence[int]) -> Ladder:
    """A ladder of which nothing is trained yet, written down in its folder."""
    held = Resources()
    division = _division(experiment, seeds, held)
    resolved = experiment.resolved()
    resolved["data"]["labels"] = division.labels  # found by looking, now written down
    ladder = Ladder(Experiment.model_validate(resolved), list(seeds), folder, held)
    ladder.note([])
    environment.note(folder, division.digest)
    # The last, since it makes the folder a ladder.
    atomic_files.write(folder / "ladder.yaml", yaml_text.dump(resolved).encode())
    return ladder


def resume(folder: Path, trusted: bool = False) -> Path:
    """Go on with a ladder that was stopped; what is finished is not done again.

    trusted: whether all code that the ladder names may run; see `loading.load_left`.
    """
    experiment = loading.load_left(folder / "ladder.yaml", trusted=trusted)
    try:
        seeds = json.loads((folder / "ladder.json").read_text(encoding="utf-8"))["seeds"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder / 'ladder.json'} cannot be read, so the seeds are not known; bring it back, "
            "or begin a new ladder."
        ) from None
    environment.follow(folder)
    held = Resources()
    environment.same_data(folder, _division(experiment, seeds, held).digest)
    with closing(claims.claim(folder)):
        return _climb(Ladder(experiment, seeds, folder, held))


def _division(experiment: Experiment, seeds: Sequence[int], held: Resources) -> FederatedDataset:
    """The first seed's division; the rows of all are the same."""
    return held.division(experiment.model_copy(update={"seed": seeds[0]}))


def _climb(ladder: Ladder) -> Path:
    finished: list[Rung] = []
    with execute.stoppable() as stop:
        try:
            for seed in ladder.seeds:
                for rung in ladder.rungs(seed):
                    if stop.is_set():
                        raise StoppedError
                    if not _stands(rung):
                        report(Runs(len(finished), ladder.planned))
                        log.info("%s, seed %d: %s", rung.name, seed, rung.what)
                        _train(rung, ladder.held, stop)
                        ladder.note([*finished, rung])
                    finished.append(rung)
        except (StoppedError, KeyboardInterrupt) as by:
            write_ladder_report(ladder.folder)
            raise StoppedError(
                f"stopped with {len(finished)} of {ladder.planned} rungs finished; go on with "
                f"`hanse resume {ladder.folder}`.",
                by,
            ) from None
    ladder.note(finished)
    write_ladder_report(ladder.folder)
    return ladder.folder


def _stands(rung: Rung) -> bool:
    """Whether a rung's run is finished; raises UserError if it was made with other settings."""
    if (rung.folder / "experiment.yaml").exists():
        _refuse_other(rung)
    return execute.finished(rung.folder)


def _train(rung: Rung, held: Resources, stop: threading.Event) -> None:
    """Run a rung, or go on with it."""
    if (rung.folder / "experiment.yaml").exists():
        simulation.resume(rung.folder, held, stop)
    else:
        simulation.run(rung.experiment, held, stop)


def _refuse_other(rung: Rung) -> None:
    """Raise UserError if a run was made with other settings than the rung now has."""
    there = loading.load_left(rung.folder / "experiment.yaml").resolved()
    wanted = rung.experiment.resolved()
    for name in sorted(wanted.keys() - DECIDED):
        if there[name] != wanted[name]:
            raise UserError(
                f"{rung.folder} was made with other settings ({name}) than ladder.yaml has now; "
                "put them back, or begin a new ladder."
            )
