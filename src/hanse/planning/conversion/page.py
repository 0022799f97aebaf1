"""The commented YAML of a converted config."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from hanse.experiment.schema import Experiment
from hanse.experiment.validation import keys
from hanse.planning.conversion.draft import Draft
from hanse.planning.yaml_comments import line, scalar

COLUMN = 44  # where comments begin


def page(draft: Draft, tool: str, config: str, out: str) -> str:
    """The text of the experiment: its settings with their keys in the config, and what is left."""
    order = keys(Experiment, ())
    tree = dict(sorted(draft.tree().items(), key=lambda item: order.index(item[0])))
    comments = {name: choice.comment for name, choice in draft.settings.items()}
    lines = [
        f"# {line(config)}, a config of {tool}, as an experiment of hanse. A comment behind a",
        "# setting names the key that it comes from, where that has another name.",
        "#",
        *(f"#   hanse {command} {line(shlex.quote(out))}" for command in ("check", "run")),
        "",
        *_lines(tree, comments, ""),
    ]  # fmt: skip
    if draft.left:
        lines += ["", "# Not carried over:"]
        lines += [f"#   {line(names)}: {reason}" for reason, names in by_reason(draft).items()]
    return "\n".join(lines) + "\n"


def by_reason(draft: Draft) -> dict[str, str]:
    """The keys that are not carried over, by the reason."""
    groups: dict[str, list[str]] = {}
    for key, reason in draft.left.items():
        groups.setdefault(reason, []).append(key)
    return {reason: ", ".join(names) for reason, names in groups.items()}


def _lines(tree: Mapping[str, Any], comments: Mapping[str, str], above: str) -> Iterator[str]:
    indent = "  " * above.count(".")
    for key, value in tree.items():
        name = f"{above}{key}"
        is_section = isinstance(value, Mapping) and bool(value)
        code = f"{indent}{scalar(key)}:" + ("" if is_section else f" {scalar(value)}")
        comment = line(comments.get(name, ""))
        yield f"{code:<{COLUMN - 2}}  # {comment}" if comment else code
        if is_section:
            yield from _lines(value, comments, f"{name}.")
