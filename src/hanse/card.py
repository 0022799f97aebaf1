"""The model card of a run's adapter."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from hanse import __version__
from hanse.experiment import Experiment
from hanse.journal import Row
from hanse.learners import adapter_files
from hanse.usage import usage


def model_card(
    experiment: Experiment,
    rounds: list[Row],
    adapter: Path,
    left: Sequence[str] = (),
    personal: Sequence[str] = (),
) -> str:
    """Markdown that tells what the adapter is, how it was made, how good it is, how to load it.

    adapter: the folder where it is. left: kinds of adapters that each client keeps, and that are
        not in the folder. personal: tensors in the folder of which each client keeps its own.
    """
    train = experiment.train
    epochs = f"{train.num_train_epochs or 1:g} epochs"
    template = Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True)  # noqa: S701 (Markdown)
    return environment.from_string(template).render(
        experiment=experiment,
        base=experiment.model.model_name_or_path,
        clients=len(experiment.participant_names),
        length=f"{train.max_steps} steps" if train.max_steps else epochs,
        data="each client's own file" if experiment.brings_own_data else experiment.data.path,
        algorithm=", ".join(experiment.resolved()["algorithm"]),
        usage=usage(adapter, '"path/to/this/folder"', experiment.data.labels),
        outputs=list(adapter_files.labels(adapter).values()),
        version=__version__,
        left=" and ".join(f"`{kind.lower()}`" for kind in left),
        personal=personal,
        before=rounds[0].get("test") or {} if rounds else {},
        after=rounds[-1].get("test") or {} if rounds else {},
    )
