"""The choice of a search in a copy of its experiment's file, with the evidence in comments."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.journal import yaml_text
from hanse.planning import experiment_copy
from hanse.planning.experiment_copy import in_block_style, lost_comments, section, without
from hanse.planning.search.search_text import sentences
from hanse.planning.search.trial import experiment_of
from hanse.planning.yaml_comments import line

if TYPE_CHECKING:
    from hanse.planning.search.search import Search
    from hanse.planning.search.winner import Winner


def write(out: Path, file: Path, search: "Search", best: "Winner", anew: bool = False) -> None:
    """Write the experiment with the chosen settings, as in `experiment_copy.write`.

    It is the user's own text with another `adapter`, `algorithm` and `train`, where these differ.
    """
    wanted = experiment_of(search.experiment, best.trial.setting)
    experiment_copy.write(out, lambda whole: page(file, search, best, whole), wanted, anew)


def page(file: Path, search: "Search", best: "Winner", anew: bool) -> str:
    """The text of the experiment with the chosen settings; anew: as in `write`."""
    values, text = yaml_text.read(file)
    if anew or not in_block_style(text, values):
        values = search.experiment.resolved()
        text, lost = yaml_text.dump(values), f"all settings of {file}, without its comments"
        changed = dict(_changed(search, best, values))
    else:
        changed = dict(_changed(search, best, values))
        lost = lost_comments(text, changed)
    remarks = [f"# {line(remark)}" for remark in (lost, *sentences(search, best)) if remark]
    kept = without(text, changed).rstrip("\n")
    head = f"# By `hanse plan {line(file)} --search`; every line may be changed."
    rows = [row for key, value in changed.items() for row in section(key, value)]
    return "\n".join([kept, "", head, *remarks, *rows, ""])


def _changed(search: "Search", best: "Winner", values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The sections that the choice changes. values: those that the copied text has."""
    setting, own = best.trial.setting, search.experiment.resolved()
    if setting.adapter.value != own["adapter"]:
        yield "adapter", dict(setting.adapter.value)
    if setting.algorithm.value != own["algorithm"]:
        yield "algorithm", dict(setting.algorithm.value)
    if setting.rate != search.experiment.train.learning_rate:
        yield "train", {**(values.get("train") or {}), "learning_rate": setting.rate}
