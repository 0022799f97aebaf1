"""The Python API, for notebooks and programs: `hanse.run`, `hanse.load_run`, a run's results."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from hanse.errors import StoppedError, UserError, refuse_missing
from hanse.experiment import loading
from hanse.journal.records import RoundRecord
from hanse.journal.run_settings import read_settings, refuse_no_run
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    import pandas  # type: ignore[import-untyped]

    from hanse.cli import options
    from hanse.cli.progress import watch
    from hanse.journal import run_folder
    from hanse.serving import plain_model
    from hanse.simulation import run as simulation

Row = dict[str, Any]
BEFORE = "stopped before anything was saved; the same call of hanse.run begins again."


class Table(list[Row]):
    """A list of rows, each a dict by column."""

    def to_pandas(self) -> Any:
        """The same as a pandas.DataFrame; raises UserError if pandas is not installed."""
        refuse_missing("to_pandas", "data", ["pandas"], "use the list of dicts that the table is")
        return pandas.DataFrame(list(self))


@dataclass(frozen=True)
class Adapter:
    """The result of a finished run: an adapter in a PEFT folder, or a change of all weights."""

    path: Path

    def load(self) -> Any:
        """The base model with the adapter, a peft.PeftModel on the CPU; trains nothing.

        After training without an adapter it is the base model with changed weights, in float32.
        AutoTokenizer.from_pretrained(adapter.path) is its tokenizer.
        """
        return plain_model.adapted(self.path.parent)[0]


@dataclass(frozen=True)
class Run:
    """A run's folder and what lies in it. Everything is read anew when it is asked for."""

    folder: Path

    @property
    def finished(self) -> bool:
        """True if the run has its adapter; `hanse resume` finishes others."""
        return (self.folder / "adapter").is_dir()

    @property
    def experiment(self) -> dict[str, Any]:
        """All settings of the run, as in its experiment.yaml."""
        return dict(read_settings(self.folder).values)

    @property
    def metrics(self) -> Table:
        """A row for each round, with the scores of the global model and the round's costs.

        Columns: round, train_loss and other numbers of training, validation_* and test_* for each
        metric, bytes_down, bytes_up, seconds. A row lacks what was not measured in its round.
        """
        return Table(_round_row(record) for record in run_folder.read_rounds(self.folder))

    @property
    def client_metrics(self) -> Table:
        """A row for each round and client that was scored on its own held-out rows."""
        return Table(
            {"round": record.round, "client": client, **scores}
            for record in run_folder.read_rounds(self.folder)
            for client, scores in record.client_test.items()
        )

    @property
    def adapter(self) -> Adapter:
        """The trained adapter; raises UserError if the run is not finished."""
        self._refuse_unfinished()
        return Adapter(self.folder / "adapter")

    @property
    def report(self) -> Path:
        """The report, one HTML file; raises UserError if there is none yet."""
        path = self.folder / "report.html"
        if not path.is_file():
            raise UserError(
                f"{self.folder} has no report yet; `hanse report {self.folder}` writes it."
            )
        return path

    def _refuse_unfinished(self) -> None:
        if not self.finished:
            raise UserError(
                f"{self.folder} is not finished; run `hanse resume {self.folder}` first."
            )


def run(
    experiment: str | PathLike[str] | Mapping[str, Any],
    *,
    progress: bool = True,
    **overrides: Any,
) -> Run:
    """Run an experiment, all clients in this process, and return the finished run.

    experiment: a YAML file, or all settings as a mapping.
    progress: show the progress and the log as `hanse run` does; false: print nothing.
    overrides: settings to change, such as rounds=3 or train={"learning_rate": 1e-4}. A mapping
        changes the settings that it names and leaves the others of its section as they are.
    Raises hanse.errors.UserError for a mistake in the settings or the data, and StoppedError, a
    kind of UserError, after Ctrl-C.
    """
    words = [word for name, value in overrides.items() for word in _words(name, value)]
    try:
        if isinstance(experiment, Mapping):
            settings = loading.from_values(dict(experiment), words)
        else:
            settings = loading.load(Path(fspath(experiment)), words)
        with _shown() if progress else nullcontext():
            return Run(simulation.run(settings))
    except KeyboardInterrupt as by:  # before the rounds begin, which answer Ctrl-C themselves
        raise StoppedError(BEFORE, by) from None


def load_run(folder: str | PathLike[str]) -> Run:
    """The run in a folder, finished or not; raises UserError if it is no run folder."""
    place = Path(fspath(folder)).expanduser()
    refuse_no_run(place)
    return Run(place)


def _words(name: str, value: Any) -> list[str]:
    """Overrides as the command line has them, one for each setting of a mapping."""
    plain = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if plain and value and not any({".", "="} & {*key} for key in value):
        return [word for key, item in value.items() for word in _words(f"{name}.{key}", item)]
    return [f"{name}={json.dumps(value, default=_text, ensure_ascii=False)}"]


def _text(value: Any) -> str:
    """A path as text; raises UserError for a value that no setting can have."""
    if isinstance(value, PathLike):
        return str(fspath(value))
    raise UserError(f"{value!r:.80} is no value of a setting; use numbers, texts, lists or dicts.")


def _round_row(record: RoundRecord) -> Row:
    """A line of metrics.jsonl as one flat row."""
    groups = (("train", record.train), ("validation", record.validation), ("test", record.test))
    scores = {
        f"{name}_{metric}": value for name, group in groups for metric, value in group.items()
    }
    return {
        "round": record.round,
        **scores,
        "bytes_down": record.bytes.down,
        "bytes_up": record.bytes.up,
        "seconds": sum(record.seconds.values()),
    }


@contextmanager
def _shown() -> Iterator[None]:
    """Within, progress and log are shown as `hanse run` shows them.

    The log is set up first, since a view on a terminal redirects the handlers that there are.
    """
    with _logged(), watch.watched(options.console):
        yield


@contextmanager
def _logged() -> Iterator[None]:
    """Within, hanse's log is printed, unless the program has set up logging itself."""
    log = logging.getLogger("hanse")
    if log.hasHandlers():
        yield
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
