"""Turn the server's YAML into the experiment that this silo will run.

The server's text holds settings only. Before any part is built, a part from outside the package is
refused, or replaced by the silo's own file of that name, and texts that a server may not give are
refused (`server_texts`). Nothing that a server names is imported, opened or matched as a pattern.
"""

import json
import re
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from hanse.deployment.silo.own_copies import named_models, public_rows
from hanse.deployment.silo.policy import ROW_SETTINGS, Policy
from hanse.deployment.silo.server_texts import refuse_texts
from hanse.deployment.silo.settings import SiloSettings
from hanse.errors import UserError
from hanse.experiment import overrides
from hanse.experiment.assembly.quorum import promised
from hanse.experiment.client_settings import OVERRIDABLE, refuse_unequal_summands
from hanse.experiment.part_kinds import NAMED, PartKind, changed_at
from hanse.experiment.schema import Experiment, build_aggregator, build_tasks
from hanse.experiment.sections import Data, Spec
from hanse.experiment.validation import explain
from hanse.federation.client_sampling import taking_part
from hanse.journal import yaml_text
from hanse.journal.yaml_text import Values
from hanse.registry import split

LARGEST = 256 * 1024  # characters of an experiment
SHOWN = 500  # characters of its settings that a message repeats
PLACE = "the server's experiment"
USUAL = Data().model_dump(mode="json")
# Settings of `data` that the server may give for one client; labels are the same for all.
_OF_ONE_CLIENT = (*(key for key in ROW_SETTINGS if key != "labels"), "client_test")


class JobRefusedError(UserError):
    """A job or a request that this silo refuses; the sentence may be sent to the server."""


class RowCounts(NamedTuple):
    """The numbers of rows that a silo trains on, and that it holds out to score."""

    train: int
    held_out: int


@dataclass(frozen=True)
class Job:
    """A run that a server asks a silo to take part in.

    experiment: the experiment with this silo's own rows, model and settings at the top level. The
        policy checks this object, and the same object is run.
    participants: the names of all clients of the run, this silo's among them.
    cohort: the number of clients of each round, as the server declares it.
    text: the experiment as the server sent it, which the agreement compares.
    quorum: the fewest updates that any round combines, as the server declares it.
    server_marks: whether the server declares that it marks the model as its own.
    """

    experiment: Experiment
    participants: tuple[str, ...]
    cohort: int
    text: str
    quorum: int = 1
    server_marks: bool = False


def received(text: str, silo: SiloSettings) -> Job:
    """The server's settings with this silo's own data and model.

    Raises JobRefusedError for text that cannot be read, that is not valid here, or that names parts
    from outside the package which `silo.policy` does not allow. `PolicyEnforcer` applies the rest
    of the policy.
    """
    values = _parsed(text)
    try:
        offered = Experiment.model_validate(values)
        if silo.name not in offered.participant_names and not offered.data.pooled:
            raise JobRefusedError(f"{PLACE} has no client {silo.name}.")
        experiment = Experiment.model_validate(_mine(offered, silo))
        build_tasks(experiment)
        refuse_unequal_summands(offered.clients, build_aggregator(experiment))
    except ValidationError as error:
        raise JobRefusedError(f"{PLACE} is not valid here: {explain(error, Experiment)}") from None
    except JobRefusedError:
        raise
    except UserError as error:
        raise JobRefusedError(f"{PLACE} is not valid here: {error}") from None
    participants = tuple(offered.participant_names)
    cohort = taking_part(len(participants), offered.fraction_train)
    quorum, marks = promised(offered, len(participants)), offered.ownership is not None
    return Job(experiment, participants, cohort, text, quorum, marks)


def _mine(offered: Experiment, silo: SiloSettings) -> dict[str, Any]:
    """The settings for this silo, without those of other clients.

    The server's settings for this client replace those at the top level, so that none is in two
    places. In `clients` are the path of the rows, which shows that each client brings its own, and
    this silo's mark; if one file is divided among all, `silo.yaml` names this silo's copy of it.
    """
    changes, safe = _client_settings(silo.name, offered), _safe(offered, silo.policy)
    rows = _rows(offered, changes.pop("data", {}), silo)
    if offered.brings_own_data:
        safe = safe.model_copy(update={"participants": None})
    else:
        if isinstance(offered.data.test, str) or isinstance(offered.data.validation, str):
            raise UserError(
                "data.test or data.validation names a file, and a silo opens no file that a server "
                "names; hold out a number of rows."
            )
        if silo.data.client_test is not None:
            raise UserError(
                f"{silo.name} has data.client_test of its own, but here one file is divided among "
                "all silos, which hold out alike; leave it out."
            )
    values = overrides.merge(safe.resolved(), _safe_changes(changes, silo.policy))
    values["data"] |= {**rows, "public": public_rows(safe, silo)}
    values["models"] = named_models(safe, values["models"], silo)
    if offered.brings_own_data:  # the server's test rows and their files do not concern this silo
        values["data"] |= {"test": 0, "validation": 0}
    if silo.model is not None:
        values["model"]["model_name_or_path"] = silo.model
    refuse_texts(values)
    own: Values = {"data": {"path": rows["path"]}} if offered.brings_own_data else {}
    if silo.ownership is not None:
        own["ownership"] = asdict(silo.ownership)
    return {**values, "clients": {silo.name: own} if own else {}}


def _rows(offered: Experiment, over: Values, silo: SiloSettings) -> dict[str, Any]:
    """The settings of this silo's rows, from silo.yaml.

    over: the server's settings for this client's data. Raises JobRefusedError for a setting that
    only the server gives, unless the policy lists it: by such settings a server could ask about
    single rows.
    """
    asked = overrides.merge(offered.data.model_dump(mode="json"), over)
    rows: dict[str, Any] = {"path": silo.data.path, "client_test": asked["client_test"]}
    if silo.data.client_test is not None:
        rows["client_test"] = silo.data.client_test
    refused = []
    for key in ROW_SETTINGS:
        theirs, own = asked[key], getattr(silo.data, key)
        if own is None and theirs != USUAL[key] and key not in silo.policy.data_settings:
            refused.append(f"{key}: {json.dumps(theirs, ensure_ascii=False)}")
        rows[key] = theirs if own is None else own
    if refused:
        raise JobRefusedError(
            f"{silo.name} takes the settings of its rows from its own silo.yaml, and the "
            f"experiment has data: {{{', '.join(refused)[:SHOWN]}}}; write them there under data, "
            "or list their names in policy.data_settings."
        )
    words = [dict.fromkeys(labels.values()) for labels in (asked["labels"], rows["labels"])]
    if words[0] and [*words[0]] != [*words[1]]:
        raise JobRefusedError(
            f"{silo.name} has other label words in its silo.yaml than the experiment, which has "
            f"{', '.join(words[0])[:SHOWN]} in this order; give its labels the "
            "same words in the same order."
        )
    return rows


def _safe(offered: Experiment, policy: Policy) -> Experiment:
    """The experiment without parts that only the server builds, and with own files for others."""
    unused: Values = {"clients": {}, "report_to": [], "attack": None, "output_dir": None}
    unused["ownership"] = None
    safe = offered.model_copy(update=unused)
    for kind in NAMED:
        specs = [_own(spec, kind, policy) for spec in kind.specs(safe)]
        if specs:
            safe = _replaced(safe, kind, specs)
    return safe


def _safe_changes(changes: Values, policy: Policy) -> Values:
    """The settings for this client, with own files for parts from outside the package."""

    def checked(value: Any, kind: PartKind) -> Any:
        if isinstance(value, list):
            return [checked(item, kind) for item in value]
        return _own(value, kind, policy) if isinstance(value, str | dict) else value

    for kind in NAMED:
        changes = changed_at(changes, kind.place, partial(checked, kind=kind))
    return changes


def _replaced(experiment: Experiment, kind: PartKind, specs: list[Spec]) -> Experiment:
    """The experiment with these specs of one kind, which are checked already."""
    *sections, setting = map(str, kind.place)
    update: dict[str, Any] = {setting: specs if kind.several else specs[0]}
    for section in reversed(sections):
        update = {section: getattr(experiment, section).model_copy(update=update)}
    return experiment.model_copy(update=update)


def _client_settings(name: str, offered: Experiment) -> dict[str, Any]:
    """The server's settings for this client, among those in which clients may differ."""
    settings = offered.clients.get(name, {})
    allowed = {*OVERRIDABLE} - {"ownership", "device"}  # the silo's own: its key, its machine
    over = {key: value for key, value in settings.items() if key in allowed}
    for key in {*over} - {"adapter"}:  # which may be a name alone
        if not isinstance(over[key], dict):
            raise JobRefusedError(
                f"{PLACE} has clients.{name}.{key} {over[key]!r:.80}, which is no section."
            )
    if "data" in over:
        over["data"] = {key: value for key, value in over["data"].items() if key in _OF_ONE_CLIENT}
    return {key: dict(value) if isinstance(value, dict) else value for key, value in over.items()}


def _parsed(text: str) -> yaml_text.Values:
    if len(text) > LARGEST:
        raise JobRefusedError(f"{PLACE} has {len(text):,} characters, more than {LARGEST:,}.")
    try:
        aliases = _has_aliases(text)
    except yaml_text.UNREADABLE:
        aliases = False  # it is not YAML, which is said below
    if aliases:  # a few lines of aliases may expand to gigabytes
        raise JobRefusedError(
            f"{PLACE} has YAML aliases (*name), which are not taken from a network."
        )
    try:
        return yaml_text.parse(text, PLACE)
    except UserError as error:
        raise JobRefusedError(str(error)) from None


def _has_aliases(text: str) -> bool:
    """Return true if a YAML text has aliases above the greatest depth that is parsed."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            return True
        if depth > yaml_text.DEEPEST:  # which is refused
            return False
    return False


def _own(spec: Spec, kind: PartKind, policy: Policy) -> Spec:
    """The spec of a part; for one from outside the package, with this silo's own file."""
    name, _ = split(kind.folder, spec)
    if ":" not in name:
        if not re.fullmatch(r"\w+", name) or name not in kind.names():
            raise JobRefusedError(f"{PLACE} names {name!r:.80}, which this hanse does not have.")
        return spec
    allowed = getattr(policy, kind.policy) or () if kind.policy else ()
    file, _, wanted = name.partition(":")
    for mine in allowed:
        path, colon, known = mine.partition(":")
        if colon and (Path(path).name, known) == (Path(file).name, wanted):
            return {mine: spec[name]} if isinstance(spec, dict) else mine
    raise JobRefusedError(
        f"{PLACE} names {name!r:.80}, a part from outside the package; this silo runs no code "
        "that a server names, unless its own policy lists the part."
    )
