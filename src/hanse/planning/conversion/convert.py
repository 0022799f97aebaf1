"""Another tool's config as an experiment: `hanse convert`."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hanse import atomic_files
from hanse.errors import UserError
from hanse.experiment import renaming
from hanse.experiment.loading import default_name
from hanse.experiment.named_parts import check_names
from hanse.experiment.schema import Experiment
from hanse.experiment.validation import explain
from hanse.journal import yaml_text
from hanse.planning.conversion.draft import Draft
from hanse.planning.conversion.page import page
from hanse.planning.conversion.tool import Tool
from hanse.planning.conversion.tools import (
    axolotl,
    federated_scope,
    flowertune,
    llama_factory,
    trl,
)

TOOLS: tuple[Tool, ...] = tuple(
    m.TOOL for m in (llama_factory, axolotl, trl, flowertune, federated_scope)
)
CODE = "trust_remote_code"


@dataclass(frozen=True)
class Conversion:
    """A written experiment: its file, the tool of the config, and what became of its keys."""

    file: Path
    tool: str
    draft: Draft


def convert(config: Path, out: Path | None) -> Conversion:
    """Write the experiment that another tool's config describes.

    out: the file to write; None: NAME-hanse.yaml here, after the config.
    Raises UserError if the config is of no known tool, or asks for what hanse does not do.
    """
    file = out or Path(f"{default_name(config)}-hanse.yaml")
    if os.path.exists(file):  # not Path.exists, which raises for a name that is too long
        raise UserError(f"{file} exists already; name another file with --out, or remove it.")
    values, text = _read(config)
    tool = _tool(values, config)
    flat = dict(_flat(values)) if tool.sections else {k.replace("-", "_"): v for k, v in values}
    _refuse_code(flat, config, text)
    draft = Draft(flat, config.parent, file.parent)
    try:
        tool.carry(draft)
        draft.default("name", default_name(config), "the file's name")
        draft.default("data.test", 0.1, "rows held out, scored before the training and after")
        draft.default("data.validation", 0.1, "rows held out, scored during the training")
        check_names(Experiment.model_validate(renaming.settled(draft.tree())))
    except ValidationError as error:
        raise UserError(f"{config}: {explain(error, Experiment)}") from None
    except UserError as error:
        raise UserError(f"{config}: {error}") from None
    written = page(draft, tool.name, config.name, str(file))
    atomic_files.write(file, written.encode())
    return Conversion(file, tool.name, draft)


def _read(config: Path) -> tuple[list[tuple[str, Any]], str]:
    """The keys and values of a YAML, JSON or TOML file, and its text."""
    if config.suffix != ".toml":
        values, text = yaml_text.read(config, "config")
        return [(str(key), value) for key, value in values.items()], text
    try:
        text = config.read_text(encoding="utf-8")
        app = _app(tomllib.loads(text))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"the config {config} cannot be read: {error}.") from None
    if not isinstance(app, Mapping) or not app:
        raise UserError(f"{config} has no [tool.flwr.app.config], which a Flower app has.")
    return list(app.items()), text


def _app(project: Mapping[str, Any]) -> Any:
    """The config of a Flower app, with the number of nodes of its default federation."""
    flwr = project.get("tool", {}).get("flwr", {})
    app = flwr.get("app", {}).get("config")
    federations = flwr.get("federations", {})
    default = federations.get(federations.get("default"), {})
    nodes = default.get("options", {}).get("num-supernodes")
    return {**app, "num-supernodes": nodes} if app and nodes else app


def _flat(items: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of all sections with dots between them, and underscores for dashes."""
    for key, value in items.items() if isinstance(items, Mapping) else items:
        name = f"{above}{str(key).replace('-', '_')}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _tool(values: list[tuple[str, Any]], config: Path) -> Tool:
    """The tool that has most of the config's keys for itself."""
    names = {name for name, _ in _flat(values)} | {key for key, _ in values}
    best = max(TOOLS, key=lambda tool: len(tool.marks & names))
    if best.marks & names:
        return best
    known = ", ".join(tool.name for tool in TOOLS)
    raise UserError(
        f"{config} has no key by which a config of {known} is known; an experiment of hanse's own "
        "needs no conversion, and `hanse init` writes one for your data."
    )


def _refuse_code(flat: Mapping[str, Any], config: Path, text: str) -> None:
    """Raise UserError if the config lets code run that comes with a model."""
    for key, value in flat.items():
        if key.rpartition(".")[2] in (CODE, f"{CODE}_model") and value is True:
            lines = text.splitlines()
            number = next((n for n, row in enumerate(lines, 1) if CODE in row), None)
            raise UserError(
                f"{config}{f':{number}' if number else ''}: {CODE}: true lets code run that comes "
                "with a model, which hanse never does; delete the line, since most models need no "
                "code of their own, and convert the file again."
            )
