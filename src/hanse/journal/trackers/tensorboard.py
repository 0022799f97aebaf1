"""TensorBoard: `tensorboard --logdir runs` compares all runs."""

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.journal.records import Metrics
from hanse.journal.tracking import Following, Tracked, Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True)
class TensorBoard(Tracker):
    """TensorBoard, from event files in the run folder's tensorboard/."""

    @property
    def packages(self) -> tuple[str, ...]:
        return ("tensorboard",)

    def open(self, run: Tracked) -> Following:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)  # the journal tells a resumed run anew
        writer = SummaryWriter(folder)
        writer.add_text("experiment", "".join(f"    {line}\n" for line in run.text.splitlines()))
        return _Events(writer)


@dataclass
class _Events(Following):
    writer: "SummaryWriter"

    def log(self, round: int, metrics: Metrics, time: float) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, round, walltime=time)
        self.writer.flush()

    def close(self, finished: bool) -> None:
        self.writer.close()
