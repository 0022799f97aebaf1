"""From the text that a server sends to the experiment as this silo runs it; nothing else is run.

A server's text is only settings. Before any part is built, those from outside the package are
refused, or replaced by the silo's own file of that name: what a server names is never imported.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hanse import settings
from hanse.errors import UserError
from hanse.experiment import Experiment, build_tasks
from hanse.faults import explain
from hanse.loading import OVERRIDABLE
from hanse.parts import names, split
from hanse.sampling import taking_part
from hanse.sections import Spec
from hanse.silo.policy import Policy
from hanse.silo.settings import Silo

LARGEST = 256 * 1024  # characters of an experiment
PLACE = "the server's experiment"

# Where parts are named → their folder, and what of a policy says which.
NAMED = {
    "algorithm": ("algorithms", "algorithms"),
    "aggregator": ("aggregators", "aggregators"),
    "objective": ("objectives", "objectives"),
}


class Refused(UserError):  # noqa: N818 (said of a job)
    """What a server asked for and this silo does not do; the sentence may go to the server."""


@dataclass(frozen=True)
class Job:
    """What a server asks of a silo.

    whole: the federation's experiment, in which this silo's rows and model are its own; from it
        follows its share, if one file is divided among all.
    experiment: the same as this silo alone sees it, which is what its policy judges.
    cohort: how many clients train in each round, by the server's word.
    """

    whole: Experiment
    experiment: Experiment
    cohort: int


def received(text: str, silo: Silo) -> Job:
    """The server's settings with this silo's own data and model.

    Raises Refused for what cannot be read, is not valid here, or names parts from outside the
    package that `silo.policy` does not allow. What else the policy says, `law.Law` finds out.
    """
    values = _parsed(text)
    try:
        told = Experiment.model_validate(values)
        if silo.name not in told.participant_names and not told.data.pooled:
            raise Refused(f"{PLACE} has no client {silo.name}.")
        whole = Experiment.model_validate(_mine(told, silo))
        experiment = whole.for_client(silo.name)
        build_tasks(experiment)
    except ValidationError as error:
        raise Refused(f"{PLACE} is not valid here: {explain(error, Experiment)}") from None
    except Refused:
        raise
    except UserError as error:
        raise Refused(f"{PLACE} is not valid here: {error}") from None
    return Job(whole, experiment, taking_part(len(told.participant_names), told.fraction_train))


def _mine(told: Experiment, silo: Silo) -> dict[str, Any]:
    """The settings with what this silo says of itself; of other clients nothing is kept.

    If clients bring their own rows, those of `silo.yaml` are this silo's; if one file is divided
    among them, `silo.yaml` has this silo's copy of it.
    """
    own, rows = _told_of(silo.name, told), silo.data.overrides
    safe = _safe(told, silo.policy)
    if told.brings_own_data:
        own["data"] = {**(own.get("data") or {}), **rows}
        safe = safe.model_copy(update={"participants": None})
    else:
        if isinstance(told.data.test, str) or isinstance(told.data.validation, str):
            raise UserError(
                "data.test or data.validation names a file, and a silo opens no file that a server "
                "names; hold out a number of rows."
            )
        if "client_test" in rows:
            raise UserError(
                f"{silo.name} has data.client_test of its own, but here one file is divided among "
                "all silos, which hold out alike; leave it out."
            )
        if "template" in rows:
            own["data"] = {"template": rows.pop("template")}
    values = safe.resolved()
    if told.brings_own_data:  # the server's test rows are its own affair, and so are their files
        values["data"] |= {"test": 0, "validation": 0}
    else:
        values["data"] |= rows
    if silo.model is not None:
        values["model"]["model_name_or_path"] = silo.model
        if isinstance(own.get("model"), dict):
            own["model"].pop("model_name_or_path", None)
    return {**values, "clients": {silo.name: own} if own else {}}


def _safe(told: Experiment, policy: Policy) -> Experiment:
    """An experiment without what only the server builds, and with own files for outside parts."""
    update: dict[str, Any] = {
        key: _own(getattr(told, key), folder, getattr(policy, allowed) or ())
        for key, (folder, allowed) in NAMED.items()
    }
    if told.evaluation.tasks is not None:
        tasks = [_own(task, "evaluation", policy.tasks) for task in told.evaluation.tasks]
        update["evaluation"] = told.evaluation.model_copy(update={"tasks": tasks})
    partition = _own(told.data.partition, "data/partitioners", ())
    update["data"] = told.data.model_copy(update={"partition": partition})
    update |= {"clients": {}, "report_to": [], "output_dir": None}
    return told.model_copy(update=update)


def _told_of(name: str, told: Experiment) -> dict[str, Any]:
    """What the server says of this one client, as far as a client may be different."""
    over = {key: own for key, own in told.clients.get(name, {}).items() if key in OVERRIDABLE}
    if isinstance(over.get("data"), dict):
        kept = ("columns", "where", "template", "client_test")
        over["data"] = {key: own for key, own in over["data"].items() if key in kept}
    return {key: dict(own) if isinstance(own, dict) else own for key, own in over.items()}


def _parsed(text: str) -> settings.Values:
    if len(text) > LARGEST:
        raise Refused(f"{PLACE} has {len(text):,} characters, more than {LARGEST:,}.")
    try:
        aliases = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
    except settings.UNREADABLE:
        aliases = False  # it is not YAML, which is said below
    if aliases:  # a few lines of them may stand for gigabytes
        raise Refused(f"{PLACE} has YAML aliases (*name), which are not taken from a network.")
    try:
        return settings.parse(text, PLACE)
    except UserError as error:
        raise Refused(str(error)) from None


def _own(spec: Spec, folder: str, allowed: Sequence[str]) -> Spec:
    """A part's spec, one from outside the package with this silo's own file."""
    name, _ = split(folder, spec)
    if ":" not in name:
        if not re.fullmatch(r"\w+", name) or name not in names(folder):
            raise Refused(f"{PLACE} names {name!r:.80}, which this hanse does not have.")
        return spec
    file, _, wanted = name.partition(":")
    for mine in allowed:
        path, colon, known = mine.partition(":")
        if colon and (Path(path).name, known) == (Path(file).name, wanted):
            return {mine: spec[name]} if isinstance(spec, dict) else mine
    raise Refused(
        f"{PLACE} names {name!r:.80}, a part from outside the package; this silo runs no code "
        "that a server names, unless its own policy lists the part."
    )
