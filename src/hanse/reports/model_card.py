"""The model card of a run's adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from hanse import __version__
from hanse.data.sources import hub
from hanse.journal.privacy_record import PrivacyRecord
from hanse.journal.records import RoundRecord
from hanse.journal.run_settings import RunSettings
from hanse.learners.injection import adapter_files
from hanse.learners.models.model_files import hub_id
from hanse.reports.loading_snippet import usage
from hanse.reports.privacy import assumptions, privacy
from hanse.reports.secure_sums import secure_sums


@dataclass(frozen=True)
class Outcome:
    """A finished run as its adapter's card shows it.

    clients: how many took part. rounds: their records.
    left: kinds of adapters that each client keeps, and that are not in the adapter's folder.
    personal: tensors in the folder of which each client keeps its own.
    deployed: whether the clients were on other machines.
    account: of differential privacy, if the run has one.
    """

    clients: int
    rounds: Sequence[RoundRecord]
    left: Sequence[str] = ()
    personal: Sequence[str] = ()
    deployed: bool = False
    account: PrivacyRecord | None = None


def model_card(settings: Mapping[str, Any], outcome: Outcome, adapter: Path) -> str:
    """A model card in Markdown: the adapter, its training, its scores, and code that loads it.

    The card goes to others: it names files and models without the folders that they lie in.

    settings: the experiment, resolved. adapter: the folder where it is.
    """
    rows, run = settings["data"], RunSettings(settings, "")
    base = settings["model"]["model_name_or_path"]
    files = [(over.get("data") or {}).get("path") for over in settings["clients"].values()]
    template = Path(__file__).with_name("model_card.md.jinja").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True)  # noqa: S701 (Markdown)
    return environment.from_string(template).render(
        experiment=settings,
        repository=hub_id(base),
        base=hub_id(base) or Path(base).name,
        clients=outcome.clients,
        length=_length(settings["train"]),
        data="each client's own file" if files and all(files) else _shown(rows["path"]),
        run=run,
        secure_sums=secure_sums(outcome.rounds, outcome.deployed),
        privacy=privacy(outcome.account),
        assumptions=assumptions(outcome.account),
        usage=usage(adapter, '"path/to/this/folder"', rows["labels"]),
        outputs=list(adapter_files.labels(adapter).values()),
        version=__version__,
        left=" and ".join(f"`{kind.lower()}`" for kind in outcome.left),
        personal=outcome.personal,
        before=outcome.rounds[0].test if outcome.rounds else {},
        after=outcome.rounds[-1].test if outcome.rounds else {},
    )


def _length(train: Mapping[str, Any]) -> str:
    """The length of a client's training in a round."""
    epochs = f"{train['num_train_epochs'] or 1:g} epochs"
    return f"{train['max_steps']} steps" if train["max_steps"] else epochs


def _shown(path: str) -> str:
    """The name of a data source: a hub's id, or the last part of a path."""
    return path if hub.is_name(path) and not Path(path).exists() else Path(path).name
