"""The settings that a plan changes."""

from typing import Any

from hanse.experiment import overrides
from hanse.experiment.devices.settings import MEASURED
from hanse.experiment.schema import Experiment, build_algorithm
from hanse.federation.algorithms.fedpipe import FedPipe
from hanse.planning.fedpipe.planned import Plan, SiloPlan


def planned_experiment(plan: Plan) -> Experiment:
    """The experiment with all settings of the plan."""
    changed = {
        "model": plan.model,
        "devices": {name: measured(plan, name) for name in plan.devices},
        "clients": {silo.silo.name: overridden(silo, plan) for silo in plan.silos},
    }
    values = overrides.merge(plan.experiment.resolved(), changed)
    values["algorithm"] = algorithm(plan) or values["algorithm"]
    values["clients"] = {name: own for name, own in values["clients"].items() if own}
    return Experiment.model_validate(values)


def algorithm(plan: Plan) -> dict[str, dict[str, Any]] | None:
    """The algorithm that a plan sets, with its settings; None if it keeps the experiment's."""
    if plan.expected:
        return {"fedpipe": {"expected_seconds": dict(plan.expected)}}
    method = build_algorithm(plan.experiment)
    is_other = isinstance(method, FedPipe) and method != FedPipe()  # a probe, or of an earlier plan
    return {"fedpipe": {}} if is_other or unequal(plan) else None


def measured(plan: Plan, device: str) -> dict[str, Any]:
    """The figures of a device that the plan has measured."""
    return plan.devices[device].model_dump(include=set(MEASURED))


def overridden(silo: SiloPlan, plan: Plan) -> dict[str, Any]:
    """The settings of a silo that differ from the experiment's."""
    train, form = silo.silo.train, silo.form
    values: dict[str, Any] = {}
    changed: dict[str, Any] = {}
    if form.rows != train.per_device_train_batch_size:
        changed["per_device_train_batch_size"] = form.rows
        changed["gradient_accumulation_steps"] = train.batch // form.rows
    shorter = silo.silo.shorter(form.share)
    for name in ("max_steps", "num_train_epochs"):
        if getattr(shorter, name) != getattr(train, name):
            changed[name] = getattr(shorter, name)
    if changed:
        values["train"] = changed
    if form.precision.name:
        values["model"] = {"quantization": form.precision.name}
    if own := _adapter(silo, plan):
        values["adapter"] = {"lora": own}
    return values


def _adapter(silo: SiloPlan, plan: Plan) -> dict[str, Any]:
    """LoRA's settings of a silo; empty if it trains all that the server's adapter has."""
    if len(silo.ranks) == len(plan.matrices) and set(silo.ranks.values()) == {plan.rank}:
        return {}
    names = sorted(silo.ranks, key=_by_layer)
    own: dict[str, Any] = {"target_modules": names}
    fresh = plan.experiment.adapter.fresh
    if getattr(fresh, "layers_to_transform", None) is not None:
        own["layers_to_transform"] = None  # the names above are of single layers
    others = {name: silo.ranks[name] for name in names if silo.ranks[name] != plan.rank}
    if others:
        own["rank_pattern"] = others
    return own


def _by_layer(name: str) -> list[tuple[int, str]]:
    """A key that sorts names by the numbers in them: layer 2 comes before layer 10."""
    parts = name.split(".")
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def unequal(plan: Plan) -> bool:
    """True if any silo's adapter is another than the server's."""
    return any(_adapter(silo, plan) for silo in plan.silos)
