"""The simulated devices of a plan's silos, and their seconds as a simulation counts them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from hanse.errors import UserError
from hanse.experiment import overrides
from hanse.experiment.assembly.assemble import SimulatedClient, Simulation
from hanse.experiment.devices import known
from hanse.experiment.devices.settings import MEASURED, DeviceSettings
from hanse.experiment.schema import Experiment
from hanse.planning.fedpipe.planned import Bounds, Plan
from hanse.planning.fedpipe.silo_settings import overridden
from hanse.planning.fedpipe.silos import Machine
from hanse.reports import formatting
from hanse.simulation.client_devices import client_devices, decided

DIGITS = 4  # of a measured figure, as the planned file has it


def of_silos(experiment: Experiment, names: Collection[str]) -> dict[str, str]:
    """The names of the devices of these silos, for those that have one."""
    common, clients = experiment.device, experiment.clients
    every = {name: clients.get(name, {}).get("device", common) for name in names}
    return {name: device for name, device in every.items() if device}


def refuse_unclear(experiment: Experiment, names: Collection[str], bounds: Bounds) -> None:
    """Raise UserError for a silo whose machine is not clear from its device."""
    for name, device in of_silos(experiment, names).items():
        if name in bounds.profiles:
            raise UserError(
                f"{name} has the device {device} in the experiment and a profile in --profiles, "
                "and a silo has one machine; leave one of them out."
            )
        if name in bounds.slower:
            raise UserError(
                f"{name} has the device {device}, whose seconds are by the model of cost, and a "
                "correction in --slower; leave one of them out."
            )
        settings = known.find(device, experiment.devices)
        if settings.memory_gb is None and not bounds.memory.keys() & {name, ""}:
            raise UserError(
                f"the memory of {name}'s device {device} is not known, and a plan chooses what "
                f"fits into it; write devices: {{{device}: {{memory_gb: …}}}}, or give --memory "
                f"{name}=GB."
            )


def equipped(simulation: Simulation, experiment: Experiment) -> Simulation:
    """The simulation with the experiment's own settings and the figures of its devices.

    simulation: of the probing experiment. What the devices leave open is measured here.
    """
    clients = {
        name: replace(client, experiment=experiment.for_client(name))
        for name, client in simulation.clients.items()
    }
    whole = decided(replace(simulation, experiment=experiment, clients=clients))
    devices = {name: _rounded(own) for name, own in measured(whole, experiment).items()}
    final = whole.experiment.model_copy(update={"devices": {**whole.experiment.devices, **devices}})
    return replace(whole, experiment=final)


def measured(simulation: Simulation, experiment: Experiment) -> dict[str, DeviceSettings]:
    """The simulation's devices with figures that the experiment lacks."""
    return {
        name: own
        for name, own in simulation.experiment.devices.items()
        if any(getattr(own, kind) != _written(name, kind, experiment) for kind in MEASURED)
    }


def machines(simulation: Simulation, names: Collection[str]) -> dict[str, Machine]:
    """The machines of the silos with devices; their memory is 0 if it is not known."""
    wanted, devices = simulation.learner.backbone.bf16, simulation.experiment.devices
    return {
        name: _machine(device, devices[device], wanted)
        for name, device in of_silos(simulation.experiment, names).items()
    }


def _machine(name: str, device: DeviceSettings, wanted: bool) -> Machine:
    bf16 = device.uses_bf16(wanted)
    source = (
        f"{name} by the model of cost, in {'bfloat16' if bf16 else 'float32'} at "
        f"{100 * (device.mfu or 0):.3g} % of its peak and {device.operator_us:.3g} microseconds an "
        "operator"
    )
    if device.bandwidth_gb_s is None:
        source += "; its bandwidth_gb_s is not known, so its seconds are those of operations alone"
    return Machine(1e9 * (device.memory_gb or 0.0), 1.0, source, name)


def counted(simulation: Simulation, plan: Plan) -> dict[str, float]:
    """Seconds of training in a round of the plan, by the names of the silos with devices."""
    settings = {
        silo.silo.name: _with(simulation.clients[silo.silo.name], overridden(silo, plan))
        for silo in plan.silos
        if silo.silo.machine.device
    }
    return training_seconds(simulation, settings)


def training_seconds(
    simulation: Simulation, settings: Mapping[str, Experiment]
) -> dict[str, float]:
    """Seconds of training in a round with these settings of silos, all of which have devices.

    They are those of a simulation: each kind of step is counted on typical rows.
    """
    clients = {}
    for name, own in settings.items():
        client = simulation.clients[name]
        whole = simulation.resources.learner(own, client.examples, client.learner.context, {})
        learner = replace(
            client.learner, backbone=whole.backbone, adapter=whole.adapter, training=own.train
        )
        clients[name] = replace(client, experiment=own, learner=learner)
    devices = client_devices(replace(simulation, clients=clients))
    return {name: device.seconds for name, device in devices.items()}


def judged(plan: Plan) -> Plan:
    """The plan with a remark on silos that take longer than the bound."""
    late = [silo for silo in plan.silos if silo.seconds > plan.bound]
    said = tuple(
        f"{silo.silo.name} takes {formatting.digits(silo.seconds)} s a round by the model of cost, "
        "more than the bound: no plan was found that is within it"
        for silo in late
    )
    return replace(plan, remarks=(*plan.remarks, *said))


def remarks(experiment: Experiment, names: Collection[str]) -> Iterator[str]:
    """A sentence on silos without a device beside others that have one."""
    devices = of_silos(experiment, names)
    if devices and (others := [name for name in names if name not in devices]):
        more = f" and {len(others) - 1} more" if others[1:] else ""
        yield (
            f"{others[0]}{more} without a device: their seconds are those of this machine, which a "
            "simulated run does not count"
        )


def _with(client: SimulatedClient, changed: Mapping[str, object]) -> Experiment:
    """A client's settings with those of a plan."""
    return Experiment.model_validate(overrides.merge(client.experiment.resolved(), changed))


def _rounded(device: DeviceSettings) -> DeviceSettings:
    """The device with its measured figures as a file has them."""
    return device.model_copy(
        update={kind: float(f"{getattr(device, kind):.{DIGITS}g}") for kind in MEASURED}
    )


def _written(name: str, kind: str, experiment: Experiment) -> float | None:
    figure: float | None = getattr(known.find(name, experiment.devices), kind)
    return figure
