"""Settings of single clients: what one may have otherwise than the others."""

from dataclasses import fields
from typing import Any

from pydantic import ValidationError

from hanse.experiment.part_kinds import ALGORITHM
from hanse.experiment.schema import Experiment, build_algorithm
from hanse.experiment.validation import SettingError, explain
from hanse.learners.injection.adapter import Adapter
from hanse.registry import suggestion

# Of a client's data, all may differ but how rows are held out and divided.
OVERRIDABLE = ("model", "adapter", "data", "train")
SHARED_DATA = ("test", "validation", "split_seed", "partition", "labels")


def check_clients(experiment: Experiment) -> None:
    """Raise SettingError for a client that is none, or has settings that no client may have."""
    known = experiment.client_names
    for name, over in experiment.clients.items():
        place = ("clients", name)
        if name not in known:
            raise SettingError(
                f"clients.{name} is no client{suggestion(name, known)}; they are "
                f"{known[0]} to {known[-1]}, or give every named client its own data.path.",
                place,
            )
        for key in over:
            if key not in OVERRIDABLE:
                raise SettingError(
                    f"clients.{name} cannot override {key!r}{suggestion(key, OVERRIDABLE)}; "
                    f"it can override {', '.join(OVERRIDABLE)}.",
                    (*place, key),
                )
        try:
            own = experiment.for_client(name)
        except ValidationError as error:
            raise explain(error, Experiment, place) from None
        _check_own_data(experiment, name, over.get("data") or {})
        _check_own_adapter(experiment, own, name)


def _check_own_data(experiment: Experiment, name: str, data: dict[str, Any]) -> None:
    """Refuse what of a client's own data settings would be ignored."""
    alone = experiment.brings_own_data
    if "path" in data and (not alone or name in experiment.default_names):
        raise SettingError(
            f"clients.{name} brings its own data.path, so every client must: give each one a name "
            "of its own and a path, or leave the paths out.",
            ("clients", name, "data", "path"),
        )
    for key in data:
        if key in SHARED_DATA or (not alone and key != "template"):
            raise SettingError(
                f"clients.{name}.data.{key} would change nothing: rows are loaded, held out and "
                "divided once for all clients; set it in data.",
                ("clients", name, "data", key),
            )


def _check_own_adapter(experiment: Experiment, own: Experiment, name: str) -> None:
    """Refuse an adapter that cannot be combined with those of the other clients."""
    mine, theirs = own.adapter, experiment.adapter
    unequal = build_algorithm(experiment).clients_may_differ
    alike = mine.source == theirs.source
    if not alike or _trained(mine.fresh, unequal) != _trained(theirs.fresh, unequal):
        rest = ""
        if not unequal:
            names = ALGORITHM.names()
            able = [
                name for name in names if getattr(ALGORITHM.find(name), "clients_may_differ", False)
            ]
            sizes = " and ".join(theirs.fresh.rank_settings) if theirs.fresh else ""
            rest = f", and {sizes} with an algorithm for that: {', '.join(able)}" if sizes else ""
        own_settings = theirs.fresh.client_settings if theirs.fresh else ()
        may = f"only {', '.join(own_settings)} may differ" if own_settings else "leave it out"
        raise SettingError(
            f"clients.{name}.adapter trains another adapter than the other clients', and a "
            f"mean of the two means nothing; {may}{rest}.",
            ("clients", name, "adapter"),
        )


def _trained(adapter: Adapter | None, unequal: bool) -> tuple[Any, ...]:
    """The adapter's settings without what may differ between clients."""
    if adapter is None:
        return ()
    differ = (*adapter.client_settings, *(adapter.rank_settings if unequal else ()))
    kept = [f.name for f in fields(adapter) if f.name not in differ]  # type: ignore[arg-type]
    return type(adapter), *(getattr(adapter, name) for name in kept)
