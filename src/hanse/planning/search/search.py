"""`hanse plan --search`: which adapter, algorithm and learning rate, by successive halving."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.errors import UserError, refuse_missing
from hanse.experiment.assembly import execute
from hanse.experiment.assembly.assemble import RUNS
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.schema import Experiment
from hanse.journal import claims, yaml_text
from hanse.lazy_imports import lazy_imports
from hanse.observability.remarks import said_once
from hanse.planning.search import halving, preconditions
from hanse.planning.search.rungs import Ladder
from hanse.planning.search.settings import Setting, Wishes, drawn, settings
from hanse.planning.search.trial import experiment_of
from hanse.reports.formatting import lower_is_better

with lazy_imports():
    from hanse.planning.search import study

if TYPE_CHECKING:
    from hanse.planning.search.study import Trial


@dataclass(frozen=True)
class Search:
    """A finished search.

    metric: what the silos scored. rungs: the rounds after which trials were compared.
    remarks: sentences on what was left out.
    """

    experiment: Experiment
    trials: Sequence["Trial"]
    rungs: Sequence[int]
    metric: str
    remarks: Sequence[str]
    folder: Path

    @property
    def lower(self) -> bool:
        """True if a smaller score is better."""
        return lower_is_better(self.metric)


def folder_of(experiment: Experiment) -> Path:
    """The folder of an experiment's search, beside the folder of its runs.

    Raises UserError for an output_dir that has no name, such as "." or "/".
    """
    if experiment.output_dir is None:
        return RUNS / f"{experiment.name}-search"
    place = Path(experiment.output_dir).expanduser()
    if place.name in ("", ".."):
        raise UserError(
            f"output_dir is {experiment.output_dir}, and a search lies beside it in a folder of "
            f"its name; name a folder there, such as output_dir=runs/{experiment.name}."
        )
    return place.with_name(f"{place.name}-search")


def search(experiment: Experiment, wishes: Wishes) -> Search:
    """Search, or go on with a search of the same settings, in its own folder.

    Raises UserError for an experiment that cannot be searched, before a model is loaded where that
    is possible, and StoppedError after Ctrl-C.
    """
    metric, every = preconditions.metric(experiment), settings(experiment, wishes)
    for setting in {setting.pair: setting for setting in every}.values():
        experiment_of(experiment, setting)  # raises UserError for a setting that is none
    refuse_missing(
        "hanse plan --search", "search", ["optuna"], "take the table of defaults in docs/search.md"
    )
    rounds, folder = wishes.rounds or experiment.rounds, folder_of(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    with closing(claims.claim(folder)), said_once():
        trials = study.open_trials(folder, lower_is_better(metric))
        resources = Resources()
        header = _header(experiment, every, wishes.trials, rounds)
        header["content of the data's files"] = resources.dataset(experiment).digest
        if trials.header is None:
            trials.begin({**header, **_chosen(experiment, every, wishes.trials, resources)})
        begun = trials.header or {}
        _refuse_other(begun, header, folder, experiment)
        trials.add([Setting.read(values) for values in begun["chosen"]])
        ladder = Ladder(trials, experiment, rounds, metric, folder, resources)
        with execute.stoppable() as stop:
            ladder.climb(stop)
        steps, remarks = halving.rungs(rounds), begun["remarks"]
        return Search(experiment, trials.every, steps, metric, remarks, folder)


def _header(
    experiment: Experiment, every: Sequence[Setting], most: int, rounds: int
) -> dict[str, Any]:
    """The settings that two calls share, so that the second goes on with the first one's trials.

    Values are texts, which a file gives back as they were.
    """
    return {
        **{f"setting {k}": yaml_text.dump({k: v}) for k, v in experiment.resolved().items()},
        "--adapters, --algorithms or --rates": [" ".join(setting.words) for setting in every],
        "--trials": most,
        "--rounds": rounds,
    }


def _chosen(
    experiment: Experiment, every: Sequence[Setting], most: int, resources: Resources
) -> dict[str, Any]:
    """The combinations that are tried, and remarks on those that are not."""
    left, remarks = preconditions.fitting(experiment, every, resources)
    chosen = drawn(left, most, experiment.seed)
    if len(chosen) < len(left):
        remarks.append(f"{len(chosen)} of {len(left)} combinations are tried, drawn by the seed")
    return {"remarks": remarks, "chosen": [asdict(setting) for setting in chosen]}


def _refuse_other(
    begun: Mapping[str, Any], header: Mapping[str, Any], folder: Path, experiment: Experiment
) -> None:
    """Raise UserError if a folder holds a search of other settings."""
    elsewhere = "name" if experiment.output_dir is None else "output_dir"
    for name, value in header.items():
        if begun.get(name) != value:
            raise UserError(
                f"{folder} holds a search with another {name}; repeat that to go on with it, or "
                f"set another {elsewhere} to search anew."
            )
