"""The trials of a search, rung by rung: trained, scored by the silos, and stopped or continued."""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hanse.errors import StoppedError
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.schema import Experiment
from hanse.observability.progress import report
from hanse.observability.steps import Runs
from hanse.planning.search import halving
from hanse.planning.search.trial import DivergedError, mean, scores_at, trial_of

if TYPE_CHECKING:
    from hanse.planning.search.study import Trial, Trials

log = logging.getLogger(__name__)


@dataclass
class Ladder:
    """The work on the trials of one search. rounds: those of the last rung."""

    trials: "Trials"
    experiment: Experiment
    rounds: int
    metric: str
    folder: Path
    resources: Resources

    def climb(self, stop: threading.Event) -> None:
        """Bring the trials to the last rung, or stop them before; raises StoppedError on `stop`.

        What earlier processes have done is not repeated. A trial that they have brought past a rung
        has been compared there; it is compared again at its own rung, with all that reach that.
        """
        rungs = halving.rungs(self.rounds)
        self._announce(rungs)
        for rung in rungs:
            for trial in self._running():
                if rung not in trial.scores:
                    self._try(trial, rung, stop)
            for trial in self._running():
                if rung == rungs[-1]:
                    self.trials.end(trial.number, "complete")
                elif trial.rounds == rung and self.trials.stops(trial.number):
                    self.trials.end(trial.number, "pruned")
        report(Runs(len(self.trials.every), len(self.trials.every)))

    def _running(self) -> "list[Trial]":
        return [trial for trial in self.trials.every if trial.state == "running"]

    def _announce(self, rungs: list[int]) -> None:
        trials = len(self.trials.every)
        total = halving.all_rounds(trials, rungs)
        log.info(
            "%d trials, compared after %s rounds: %d rounds in all, as many as %.1f runs of %d",
            *(trials, ", ".join(map(str, rungs)), total, total / self.rounds, self.rounds),
        )

    def _try(self, trial: "Trial", rung: int, stop: threading.Event) -> None:
        """Train a trial up to a rung, and keep the silos' scores, or the reason of a failure."""
        every = self.trials.every
        report(Runs(sum(own.state != "running" for own in every), len(every)))
        log.info("trial %d of %d: %s", trial.number + 1, len(every), trial.setting)
        home = self.folder / f"trial-{trial.number + 1:02d}"
        experiment = trial_of(self.experiment, trial.setting, self.rounds, home)
        try:
            if stop.is_set():
                raise StoppedError
            scores = scores_at(experiment, rung, self.metric, self.resources, stop)
        except StoppedError as by:
            raise StoppedError(
                f"stopped in trial {trial.number + 1} of {len(every)}; the same command goes on "
                f"with the trials in {self.folder}.",
                by,
            ) from None
        except DivergedError as error:
            log.warning("trial %d has failed: %s", trial.number + 1, error)
            self.trials.end(trial.number, "fail", str(error))
            return
        told = (trial.number + 1, self.metric, mean(scores), rung)
        log.info("trial %d: %s %.4g after round %d", *told)
        self.trials.report(trial.number, rung, scores)
