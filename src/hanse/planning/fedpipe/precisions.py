"""The precision of the base: as measured here, and in fewer bits for silos with less memory."""

import logging
from collections.abc import Iterator
from dataclasses import replace

from hanse.errors import UserError
from hanse.experiment.assembly.assemble import Simulation
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.schema import Experiment
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.kernels.frozen import packed_bytes
from hanse.planning.fedpipe import step_probes
from hanse.planning.fedpipe.choices import Precision

log = logging.getLogger(__name__)

LOSSES = {"int8": 0.02, "nf4": 0.05}  # of gain; reconstruction: bits are given up only if needed
STEPS = 2  # timed steps of each


def lower_precisions(
    simulation: Simulation, resources: Resources, usual: Precision
) -> Iterator[Precision]:
    """The base in 8 and 4 bits, each loaded and timed; one that cannot be loaded is left out.

    usual: the base as the simulation has it.
    """
    settings = simulation.experiment.model
    if settings.quantization != "none":
        return
    client = max(simulation.clients.values(), key=lambda own: len(own.examples["train"]))
    seconds, peak = _step(client.learner)
    size = model_bytes(client.learner) + packed_bytes(client.learner.backbone.model)
    for name, loss in LOSSES.items():
        lower = replace(settings, quantization=name)  # type: ignore[arg-type]
        experiment = simulation.experiment.model_copy(update={"model": lower})
        try:
            learner = resources.learner(experiment, client.examples, client.learner.context, {})
        except UserError as error:
            log.warning("%s is left out of the plan: %s", name, error)
            continue
        own, above = _step(learner)
        unpacking = max(0.0, above - peak)  # of weights, as steps need it beside the activations
        memory = usual.memory - size + model_bytes(learner) + unpacking
        yield Precision(name, memory, own / seconds, loss)


def chosen_mode(experiment: Experiment, learner: AdaptedModel) -> dict[str, bool | str]:
    """The settings of the base that are `auto`, as they were measured to be fastest here."""
    if not learner.backbone.measurement.comparisons:
        return {}
    mode = learner.backbone.compute_mode
    chosen: dict[str, bool | str] = {"bf16": mode.bf16, "products": mode.products}
    return {name: own for name, own in chosen.items() if getattr(experiment.model, name) == "auto"}


def _step(learner: AdaptedModel) -> tuple[float, float]:
    """The seconds of a step with the experiment's own batch, and its peak; 0 if it is not told."""
    learner = replace(learner, together=None, optimizer_state={})
    peak = step_probes.peak_above(learner.backbone, lambda: learner.fit(steps=1 + STEPS))
    result = learner.fit(steps=STEPS)
    return max(result.seconds / result.steps, 1e-6), peak or 0.0


def model_bytes(learner: AdaptedModel) -> int:
    """The bytes of a model in memory."""
    model = learner.backbone.model
    tensors = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
