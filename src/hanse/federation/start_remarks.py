"""Log lines of a server on the limits of a run, before its first round."""

import logging

from hanse.federation.run import Run
from hanse.journal import updates

log = logging.getLogger(__name__)


def tell_limits(run: Run) -> None:
    """Log which norms of updates are not compared, and that updates are kept, if they are."""
    method = run.method
    if run.schedule.max_norm_ratio is not None and method.aggregator.sums_only:
        log.warning(
            "deployment.max_norm_ratio does nothing here: %s sees only sums, so the norm of no "
            "single update is known",
            type(method.aggregator).__name__,
        )
    elif run.schedule.max_norm_ratio is not None and method.hides_updates:
        log.info(
            "deployment.max_norm_ratio does nothing here: %s limits each update by itself",
            type(method.pipelines.upload.mechanisms[0]).__name__,
        )
    elif run.schedule.max_norm_ratio is not None and method.aggregator.sets_norms:
        log.info(
            "deployment.max_norm_ratio does nothing here: %s sets the norm of each update itself",
            type(method.aggregator).__name__,
        )
    if run.collects:
        place = run.journal.folder / updates.FOLDER
        log.warning("the update of each client in each round is written to %s", place)
