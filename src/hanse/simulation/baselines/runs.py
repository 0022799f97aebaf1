"""A baseline comparison from its experiment to its finished folder, run after run.

baselines.yaml  the resolved experiment that all runs are derived from
baselines.json  the seeds and the figures, rewritten after each run
report.html     the comparison as a page
machine.json    threads, versions and the data's hash, as in a run folder
seed-<s>/       the run folders of one seed, by variant
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hanse import atomic_files
from hanse.errors import StoppedError, UserError
from hanse.experiment import loading
from hanse.experiment.assembly import execute, in_place
from hanse.experiment.assembly.dataset.federated_dataset import FederatedDataset
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.model_hashes import model_hashes
from hanse.experiment.schema import Experiment
from hanse.journal import claims, environment, record_files, yaml_text
from hanse.journal.baselines_records import BASELINES, read_baselines
from hanse.observability.progress import report
from hanse.observability.steps import Runs
from hanse.reports.baselines.page import write_baselines_report
from hanse.simulation import run as simulation
from hanse.simulation.baselines.figures import figures
from hanse.simulation.baselines.variants import Variant, refuse, variants

log = logging.getLogger(__name__)

DECIDED = {"output_dir", "clients_per_pass"}  # each run decides these by itself


@dataclass
class Baselines:
    """An experiment with its seeds, in its folder."""

    experiment: Experiment
    seeds: list[int]
    folder: Path
    resources: Resources

    def variants(self, seed: int) -> list[Variant]:
        """One seed's variants; their lengths depend on the clients' rows, which the seed draws."""
        seeded = self.experiment.model_copy(update={"seed": seed})
        sizes = {name: len(rows) for name, rows in self.resources.dataset(seeded).train.items()}
        return variants(self.experiment, sizes, seed, self.folder / f"seed-{seed}")

    @property
    def planned(self) -> int:
        """The number of all variants."""
        return len(self.seeds) * (2 * len(self.experiment.client_names) + 3)

    def note(self, finished: Sequence[Variant]) -> None:
        """Write the figures of all finished variants into the folder."""
        record = figures(self.experiment, self.seeds, finished, self.planned, self.folder)
        record_files.write(self.folder / BASELINES, record)


def run(experiment: Experiment, seeds: Sequence[int]) -> Path:
    """Train every variant with every seed in a new folder, and return the finished folder."""
    refuse(experiment)
    name = (
        experiment.name if experiment.name.endswith("baselines") else f"{experiment.name}-baselines"
    )
    with execute.reserved(experiment.output_dir, name) as claim:
        baselines = _begin(claim.folder, experiment, seeds)
    with closing(claim):
        return _train_all(baselines)


def _begin(folder: Path, experiment: Experiment, seeds: Sequence[int]) -> Baselines:
    """Write a new baseline comparison, without any trained variant, into its folder."""
    resources = Resources()
    dataset = _first_dataset(experiment, seeds, resources)
    resolved = experiment.resolved()
    resolved["data"]["labels"] = dataset.labels  # found in the rows
    baselines = Baselines(Experiment.model_validate(resolved), list(seeds), folder, resources)
    baselines.note([])
    models = model_hashes(experiment, clients=True)
    environment.note(folder, dataset.digest, public=dataset.public.digest, models=models)
    # This file comes last, since it makes the folder a baseline comparison.
    atomic_files.write(folder / "baselines.yaml", yaml_text.dump(resolved).encode())
    return baselines


def resume(folder: Path, trusted: bool = False) -> Path:
    """Continue a stopped baseline comparison; finished runs are not repeated.

    trusted: whether all code that the baseline comparison names may run; see `loading.load_left`.
    """
    experiment = loading.load_left(folder / "baselines.yaml", trusted=trusted)
    seeds = list(read_baselines(folder).seeds)
    environment.follow(folder)
    environment.same_models(folder, model_hashes(experiment, clients=True))
    resources = Resources()
    dataset = _first_dataset(experiment, seeds, resources)
    environment.same_data(folder, dataset.digest, dataset.public.digest)
    with closing(claims.claim(folder)):
        return _train_all(Baselines(experiment, seeds, folder, resources))


def _first_dataset(
    experiment: Experiment, seeds: Sequence[int], resources: Resources
) -> FederatedDataset:
    """The dataset of the first seed; all seeds have the same rows."""
    return resources.dataset(experiment.model_copy(update={"seed": seeds[0]}))


def _train_all(baselines: Baselines) -> Path:
    """Train the variants that are not finished, and write the report."""
    finished: list[Variant] = []
    with execute.stoppable() as stop:
        try:
            for seed in baselines.seeds:
                for variant in baselines.variants(seed):
                    if stop.is_set():
                        raise StoppedError
                    if not _is_finished(variant):
                        report(Runs(len(finished), baselines.planned))
                        log.info("%s, seed %d: %s", variant.name, seed, variant.what)
                        _train(variant, baselines.resources, stop)
                        baselines.note([*finished, variant])
                    finished.append(variant)
        except (StoppedError, KeyboardInterrupt) as by:
            write_baselines_report(baselines.folder)
            raise StoppedError(
                f"stopped with {len(finished)} of {baselines.planned} variants finished; go on "
                f"with `hanse resume {baselines.folder}`.",
                by,
            ) from None
    baselines.note(finished)
    write_baselines_report(baselines.folder)
    return baselines.folder


def _is_finished(variant: Variant) -> bool:
    """True if a variant's run is finished; raises UserError if its settings were others."""
    if (variant.folder / "experiment.yaml").exists():
        _refuse_other(variant)
    return execute.finished(variant.folder)


def _train(variant: Variant, resources: Resources, stop: threading.Event) -> None:
    """Run a variant, or resume it."""
    if (variant.folder / "experiment.yaml").exists():
        simulation.resume(variant.folder, resources, stop)
    else:
        simulation.run(variant.experiment, resources, stop)


def _refuse_other(variant: Variant) -> None:
    """Raise UserError if a run was made with other settings than the variant now has."""
    before = loading.load_left(variant.folder / "experiment.yaml").resolved()
    now = in_place.prepared(variant.experiment).resolved()  # as a run writes it
    for name in sorted(now.keys() - DECIDED):
        if before[name] != now[name]:
            raise UserError(
                f"{variant.folder} was made with other settings ({name}) than baselines.yaml has "
                "now; put them back, or begin a new baseline comparison."
            )
