"""Print the scores of a finished run, the places of its results, and the next command."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from hanse.cli.options import console
from hanse.errors import UserError
from hanse.evaluation.metrics.confidence import paired
from hanse.journal import checkpoints, record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.round_costs import simulated_seconds
from hanse.journal.run_folder import read_evaluation, read_rounds
from hanse.reports import formatting


def tell(folder: Path) -> None:
    """Print the scores of a finished run, the places of its results, and the next command."""
    checkpoint = checkpoints.latest(folder)
    last = checkpoint.round if checkpoint else 0
    files = sorted((folder / "scores").glob(f"test-*-{last:05d}.json"))
    for file in files:
        task = file.name[len("test-") : -len(f"-{last:05d}.json")]
        try:
            console.print(_outcome(folder, task, last), style="bold", soft_wrap=True)
        except (UserError, ValueError):
            console.print(f"the scores in {file.parent} cannot be read", soft_wrap=True)
    _tell_links(folder)
    _tell_privacy(folder)
    console.print(f"adapter  {folder / 'adapter'}", soft_wrap=True)
    console.print(f"report   {folder / 'report.html'}", soft_wrap=True)
    command = f"hanse evaluate {shlex.quote(str(folder))}"
    console.print(f"next     {command if files else f'{command} --data FILE'}", soft_wrap=True)


def _tell_links(folder: Path) -> None:
    """Print the simulated seconds beside the bytes, if the run had links."""
    try:
        rounds = read_rounds(folder)
    except UserError:
        return  # the report names what cannot be read
    if (seconds := simulated_seconds(rounds)) is not None:
        down, up = (sum(getattr(row.bytes, way) for row in rounds) for way in ("down", "up"))
        traffic = f"{formatting.bytes_(down)} down and {formatting.bytes_(up)} up"
        took = formatting.seconds(seconds)
        console.print(f"links    {took} of simulated time for {traffic}", soft_wrap=True)


def _tell_privacy(folder: Path) -> None:
    """Print what the run's releases have cost, if a mechanism of privacy has an account."""
    try:
        account = record_files.read(folder / PRIVACY, PrivacyRecord)
    except UserError:
        return  # the report says so
    if account is not None:
        console.print(f"privacy  {account.sentence()}", soft_wrap=True)


def _outcome(folder: Path, task: str, last: int) -> str:
    """A task's mean score of the test rows, and the score before training if there is one."""
    after = read_evaluation(folder, f"test-{task}", last)
    intro = f"{formatting.label(after.measured)} of {len(after.items):,} held-out rows: "
    score = fmean(after.items)
    if not (folder / "scores" / f"test-{task}-00000.json").exists():
        return f"{intro}{score:.4f}"
    before = read_evaluation(folder, f"test-{task}", 0)
    if before.measured != after.measured:
        return f"{intro}{score:.4f} (another version of hanse computed the scores before training)"
    change = difference(after.items, before.items)
    return f"{intro}{fmean(before.items):.4f} → {score:.4f}, change {change}"


def difference(after: Sequence[float], before: Sequence[float]) -> str:
    """The mean difference of the scores of the same rows with its interval, in words."""
    interval = paired(after, before)
    if interval is None:
        value = fmean(after) - fmean(before)
        reason = "it is the same for every row" if math.isfinite(value) else "not all are numbers"
        reason = "one row is too few" if len(after) == 1 else reason
        return f"{value:+.4f} (without an interval: {reason})"
    # A narrow interval takes more digits: rounded to one number it would claim certainty.
    digits = max(4, 1 - math.floor(math.log10(interval.high - interval.low)))
    mean, low, high = (f"{x:+.{digits}f}" for x in (interval.value, interval.low, interval.high))
    return f"{mean} (paired 95 % interval {low} to {high})"
