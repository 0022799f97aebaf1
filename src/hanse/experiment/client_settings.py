"""Settings in which one client may differ from the others."""

from dataclasses import fields
from typing import Any

from pydantic import ValidationError

from hanse.experiment.part_kinds import ALGORITHM
from hanse.experiment.schema import Experiment, build_algorithm
from hanse.experiment.validation import SettingError, explain
from hanse.learners.injection.adapter import Adapter
from hanse.registry import suggestion

OVERRIDABLE = ("model", "adapter", "data", "train")
# The settings of `data` that are the same for all: how rows are held out and divided.
SHARED_DATA = ("test", "validation", "split_seed", "partition", "labels")


def check_clients(experiment: Experiment) -> None:
    """Raise SettingError for an unknown client, and for settings that a client may not have."""
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
            settings = experiment.for_client(name)
        except ValidationError as error:
            raise explain(error, Experiment, place) from None
        _check_data(experiment, name, over.get("data") or {})
        _check_adapter(experiment, settings, name)


def _check_data(experiment: Experiment, name: str, data: dict[str, Any]) -> None:
    """Refuse settings of a client's data that would be ignored."""
    own_rows = experiment.brings_own_data
    if "path" in data and (not own_rows or name in experiment.default_names):
        raise SettingError(
            f"clients.{name} brings its own data.path, so every client must: give each one a name "
            "of its own and a path, or leave the paths out.",
            ("clients", name, "data", "path"),
        )
    for key in data:
        if key in SHARED_DATA or (not own_rows and key != "template"):
            raise SettingError(
                f"clients.{name}.data.{key} would change nothing: rows are loaded, held out and "
                "divided once for all clients; set it in data.",
                ("clients", name, "data", key),
            )


def _check_adapter(experiment: Experiment, client: Experiment, name: str) -> None:
    """Refuse an adapter that cannot be combined with those of the other clients.

    client: the experiment with this client's settings.
    """
    other = experiment.adapter
    ranks_may_differ = build_algorithm(experiment).clients_may_differ
    adapters = [
        (choice.source, _shared_settings(choice.fresh, ranks_may_differ))
        for choice in (client.adapter, other)
    ]
    if adapters[0] != adapters[1]:
        raise SettingError(
            f"clients.{name}.adapter trains another adapter than the other clients', and a "
            f"mean of the two means nothing; {_advice(other.fresh, ranks_may_differ)}.",
            ("clients", name, "adapter"),
        )


def _shared_settings(adapter: Adapter | None, ranks_may_differ: bool) -> tuple[Any, ...]:
    """The kind of an adapter and the settings that are the same for all clients."""
    if adapter is None:
        return ()
    differ = (*adapter.client_settings, *(adapter.rank_settings if ranks_may_differ else ()))
    names = [f.name for f in fields(adapter) if f.name not in differ]  # type: ignore[arg-type]
    return type(adapter), *(getattr(adapter, name) for name in names)


def _advice(adapter: Adapter | None, ranks_may_differ: bool) -> str:
    """The settings of an adapter that may differ, and the algorithms with which its rank may."""
    if adapter is None:
        return "leave it out"
    advice = (
        f"only {', '.join(adapter.client_settings)} may differ"
        if adapter.client_settings
        else "leave it out"
    )
    if ranks_may_differ or not adapter.rank_settings:
        return advice
    names = [
        name
        for name in ALGORITHM.names()
        if getattr(ALGORITHM.find(name), "clients_may_differ", False)
    ]
    ranks = " and ".join(adapter.rank_settings)
    return f"{advice}, and {ranks} with an algorithm for that: {', '.join(names)}"
