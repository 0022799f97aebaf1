"""Settings in which one client may differ from the others."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hanse.errors import UserError
from hanse.experiment.part_kinds import ALGORITHM, DOWNLOAD, UPLOAD
from hanse.experiment.schema import (
    Experiment,
    build_aggregator,
    build_algorithm,
    build_all,
)
from hanse.experiment.validation import SettingError, explain
from hanse.federation.interfaces.declarations import Difference, includes
from hanse.learners.injection.adapter import Adapter
from hanse.registry import suggestion

if TYPE_CHECKING:  # importing it imports torch
    from hanse.federation.interfaces.aggregator import Aggregator

OF_THE_CLIENT_ALONE = ("links", "device", "ownership")  # they change no shape of what is summed
OVERRIDABLE = ("model", "adapter", "models", "data", "train", "compression", *OF_THE_CLIENT_ALONE)
# The settings of `data` that are the same for all: how rows are held out and divided.
SHARED_DATA = ("test", "validation", "split_seed", "mask_history", "partition", "labels", "public")
# A client's own settings of `data` that say where its rows lie, not which of them it trains on.
PLACE_OF_ROWS = ("path", "columns", "encoding")


def check_clients(experiment: Experiment) -> None:
    """Raise SettingError for an unknown client, and for settings that a client may not have."""
    _check_names(experiment)
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
        _check_compression(experiment, settings, name)
        _check_data(experiment, name, over.get("data") or {})
        _check_models(experiment, name, over.get("models") or {})
        _check_adapter(experiment, settings, name)
    if experiment.clients:
        refuse_unequal_summands(experiment.clients, build_aggregator(experiment))


def refuse_unequal_summands(
    clients: Mapping[str, Mapping[str, Any]], aggregator: "Aggregator"
) -> None:
    """Raise SettingError for a client's settings that change its part of a sum.

    A rule that sees sums only hides an update among others. If all clients but one had a learning
    rate of nearly 0, or trained on a few rows, the sum would be this one's update.

    clients: the settings of each client of the run, by name, as `Experiment.clients` has them.
    """
    if not aggregator.sums_only:
        return
    for name, over in clients.items():
        for place in _of_the_summand(over):
            setting = ".".join(place)
            raise SettingError(
                f"clients.{name:.80} has {setting:.80} of its own, but "
                f"{type(aggregator).__name__} sees sums only, and if all clients but one had other "
                "settings, the sum would be that one's update; set it for all clients, or choose "
                "the aggregator mean.",
                ("clients", name, *place),
            )


def _of_the_summand(over: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The places of a client's settings that change what it contributes."""
    for key, value in over.items():
        if key == "data" and isinstance(value, dict):
            yield from (("data", str(own)) for own in value if own not in PLACE_OF_ROWS)
        elif key not in OF_THE_CLIENT_ALONE:
            yield (key,)


def _check_names(experiment: Experiment) -> None:
    """Refuse names of silos that are not as many as the clients, or not distinct."""
    names, wanted = experiment.silo_names, experiment.num_clients
    if names is None:
        return
    if experiment.brings_own_data:
        raise SettingError(
            "silo_names would change nothing: every client is named in clients; leave it out.",
            ("silo_names",),
        )
    if len(names) != wanted:
        raise SettingError(
            f"silo_names has {len(names)} names, and num_clients is {wanted}; give each client a "
            "name, or set silo_names to null.",
            ("silo_names",),
        )
    if len({*map(str.casefold, names)}) < len(names):
        raise SettingError(
            "silo_names has a name twice; give each client a name of its own.", ("silo_names",)
        )


def _check_compression(experiment: Experiment, client: Experiment, name: str) -> None:
    """Build the codecs of a client, to check them; client: the experiment with its settings."""
    if client.compression.collect != experiment.compression.collect:
        raise SettingError(
            f"clients.{name}.compression.collect would change nothing: the server collects the "
            "updates of all clients or of none; set compression.collect.",
            ("clients", name, "compression", "collect"),
        )
    for kind in (UPLOAD, DOWNLOAD):
        try:
            build_all(kind, kind.specs(client))
        except UserError as error:
            raise SettingError(f"clients.{name}: {error}", ("clients", name, *kind.place)) from None


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


def _check_models(experiment: Experiment, name: str, models: dict[str, Any]) -> None:
    """Refuse settings of a model that the experiment does not have."""
    known = experiment.models
    for model in models:
        if model not in known:
            raise SettingError(
                f"clients.{name}.models.{model} is no model of `models`{suggestion(model, known)}, "
                f"which has {', '.join(known) or 'none'}; name it there for all clients.",
                ("clients", name, "models", model),
            )


def _check_adapter(experiment: Experiment, client: Experiment, name: str) -> None:
    """Refuse an adapter that cannot be combined with those of the other clients.

    client: the experiment with this client's settings.
    """
    other, may_differ = experiment.adapter, build_algorithm(experiment).clients_may_differ
    adapters = [
        (choice.source, _shared_settings(choice.fresh, may_differ))
        for choice in (client.adapter, other)
    ]
    if adapters[0] != adapters[1] and may_differ != "model":
        raise SettingError(
            f"clients.{name}.adapter trains another adapter than the other clients', and a "
            f"mean of the two means nothing; {_advice(other.fresh, may_differ)}.",
            ("clients", name, "adapter"),
        )


def _shared_settings(adapter: Adapter | None, may_differ: Difference) -> tuple[Any, ...]:
    """The kind of an adapter and the settings that are the same for all clients."""
    if adapter is None:
        return ()
    settings = _unequal_settings(adapter)
    differ = {name for level in settings if includes(may_differ, level) for name in settings[level]}
    names = [f.name for f in fields(adapter) if f.name not in differ]  # type: ignore[arg-type]
    return type(adapter), *(getattr(adapter, name) for name in names)


def _unequal_settings(adapter: Adapter) -> dict[Difference, tuple[str, ...]]:
    """The settings of an adapter in which clients may differ, by what the algorithm must allow."""
    return {
        "none": adapter.client_settings,
        "rank": adapter.rank_settings,
        "layout": adapter.layout_settings,
    }


def _advice(adapter: Adapter | None, may_differ: Difference) -> str:
    """The settings in which clients may differ, and the algorithms with which others may."""
    if adapter is None:
        return "leave it out"
    free: list[str] = []
    advice = []
    for level, settings in _unequal_settings(adapter).items():
        if settings and includes(may_differ, level):
            free += settings
        elif settings and (algorithms := _algorithms(level)):
            listed = ", ".join(algorithms)
            advice.append(f"{' and '.join(settings)} with an algorithm for that: {listed}")
    if models := _algorithms("model"):
        advice.append(f"its kind with an algorithm for that: {', '.join(models)}")
    return ", and ".join(
        [f"only {', '.join(free)} may differ" if free else "leave it out", *advice]
    )


def _algorithms(wanted: Difference) -> list[str]:
    """The names of the package's algorithms whose clients may differ in this."""
    parts = {name: ALGORITHM.find(name) for name in ALGORITHM.names()}
    return [
        n for n, p in parts.items() if includes(getattr(p, "clients_may_differ", "none"), wanted)
    ]
