"""A few real steps on this machine, from which seconds and memory of others are predicted."""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from hanse.data.example import Example
from hanse.learners import step_cost
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.step_cost import StepCost
from hanse.learners.training.settings import TrainingSettings
from hanse.observability.memory import (
    available_memory,
    held_memory,
    peak_memory,
    release,
    reset_peak,
)
from hanse.planning.fedpipe import cost_model
from hanse.planning.fedpipe.cost_model import CostModel, StepSetting, Vector
from hanse.randomness import RoundContext
from hanse.simulation.device_cost import Machine

MOST_PROBES = 8
ENOUGH = 4  # probes, if they take long
SECONDS = 40.0  # for all of them
TIMED = 2  # steps after the first, which warms the machine up
LONG = 3.0  # seconds of a step after which no second one is timed: noise is a small part of it
RATIO = 1.9  # peak ÷ tensors that are kept for the backward pass, where the peak is not measured
RATIOS = 1.0, 3.0  # bounds of what is measured; small models leave noise
MARGIN = 1.05  # over the fitted memory


@dataclass(frozen=True)
class StepModel:
    """The predicted seconds of a step, and the bytes beside the model at its peak.

    probes: the number of measured settings. kept: coefficients of bytes that are kept for the
        backward pass, of T, T·d, T·S and T·r·d as in `cost_model`. ratio: of the peak to these.
    stopped: whether there are fewer probes than wished, since they took too long.
    timed: whether the steps were timed; if not, `cost` is that of a simulated device.
    devices: models of simulated devices, fitted to the seconds that theirs of the same steps are
        by the model of cost; or of silos, fitted to steps that they have measured themselves.
    """

    cost: CostModel
    probes: int
    kept: Vector
    ratio: float
    devices: Mapping[str, CostModel] = field(default_factory=dict)
    stopped: bool = False
    timed: bool = True

    def seconds(self, setting: StepSetting, device: str = "") -> float:
        """The seconds of a step on this machine, or on one of the devices."""
        return (self.devices[device] if device else self.cost).seconds(setting)

    def bytes(self, setting: StepSetting) -> float:
        """The bytes of activations and gradients at the peak of a step."""
        return MARGIN * self.ratio * float(_kept_terms(setting) @ self.kept)


@dataclass(frozen=True)
class Probe:
    """A step that was measured.

    seconds: of the fastest of a few; nan: not timed. kept: bytes that it keeps for its backward
    pass. peak: bytes above those before it; None if the system does not tell. cost: None without
    simulated devices.
    """

    setting: StepSetting
    seconds: float
    kept: float
    peak: float | None
    cost: StepCost | None = None


def measured(
    learner: AdaptedModel,
    names: Sequence[str],
    most_rows: int,
    rank: int,
    devices: Mapping[str, Machine] = {},
    limit: float | None = None,
    timed: bool = True,
) -> StepModel:
    """The model of steps from at most eight probes, as in `probed`.

    devices: simulated ones as the model of cost sees them. limit: seconds after which `ENOUGH` do;
        None: `SECONDS`.
    timed: whether any silo takes the seconds of this machine; if not, no step is timed.
    """
    probes, stopped = probed(learner, names, most_rows, rank, bool(devices), limit, timed)
    return replace(fitted(probes, devices), stopped=stopped)


def probed(
    learner: AdaptedModel,
    names: Sequence[str],
    most_rows: int,
    rank: int,
    count: bool = False,
    limit: float | None = None,
    timed: bool = True,
) -> tuple[list[Probe], bool]:
    """At most eight measured steps, and whether there are fewer since they took long.

    learner: with the examples that batches are taken from. names: the matrices that may have
        adapters, by their full names. most_rows: of a batch. rank: the largest.
    count: whether operations and bytes are counted, too. limit: seconds after which `ENOUGH` do;
        None: `SECONDS`. timed: whether any step is timed.
    """
    rows = sorted(learner.examples("train"), key=len)
    depth = layer_count(learner.backbone)
    candidates = _candidates(rows, most_rows, rank, depth)
    probes: list[Probe] = []
    start, stopped = time.perf_counter(), False
    while len(probes) < MOST_PROBES:
        late = time.perf_counter() - start > (SECONDS if limit is None else limit)
        setting = cost_model.next_probe(candidates, [probe.setting for probe in probes])
        stopped = setting is not None and late and len(probes) >= ENOUGH
        if setting is None or stopped:
            break
        probes.append(probe(learner, names, rows, setting, count, timed))
    return probes, stopped


def memory(backbone: Backbone) -> tuple[float, float]:
    """Bytes that the process holds, and those left for it; of a GPU if the model is there."""
    if backbone.device.type == "cuda":
        torch.cuda.empty_cache()  # what torch keeps for later tensors would count as neither
        held = torch.cuda.memory_allocated(backbone.device)
        return float(held), float(torch.cuda.mem_get_info(backbone.device)[0])
    release()
    return float(held_memory()), float(available_memory())


def layer_count(backbone: Backbone) -> int:
    """The layers that gradients may flow through; 1 if their order is not known."""
    config = backbone.model.config
    return 1 if config.is_encoder_decoder else int(config.get_text_config().num_hidden_layers)


def depth_of(name: str, layers: int) -> int:
    """The upper layers that gradients flow through if a matrix has an adapter."""
    number = re.search(r"\.(\d+)\.", name)
    return max(1, layers - int(number[1])) if number and layers > 1 else layers


def batch_near(rows: Sequence[Example], setting: StepSetting) -> list[Example]:
    """Examples, sorted by length, of about a setting's length."""
    lengths = np.array([len(row) for row in rows])
    first = int(np.searchsorted(lengths, setting.length)) - setting.rows // 2
    first = min(max(first, 0), max(0, len(rows) - setting.rows))
    return list(rows[first : first + setting.rows])


def _candidates(rows: Sequence[Example], most: int, rank: int, depth: int) -> list[StepSetting]:
    most = min(most, len(rows))
    lengths = {len(rows[int(share * (len(rows) - 1))]) for share in (0.2, 0.5, 0.9)}
    sizes, ranks = {1, max(1, most // 2), most}, {max(1, rank // 4), rank}
    depths = {max(1, depth // 4), max(1, depth // 2), depth}
    return [
        StepSetting(b, s, r, d)
        for b in sorted(sizes)
        for s in sorted(lengths)
        for r in sorted(ranks)
        for d in sorted(depths)
    ]


def probe(
    learner: AdaptedModel,
    names: Sequence[str],
    rows: Sequence[Example],
    setting: StepSetting,
    count: bool,
    timed: bool = True,
) -> Probe:
    """Measure a step of a setting: one that shows its memory, and some that are timed.

    count: whether its operations and bytes are counted, too. timed: whether there are timed ones.
    """
    backbone, layers = learner.backbone, layer_count(learner.backbone)
    upper = tuple(name for name in names if depth_of(name, layers) <= setting.depth)
    lora = Lora(r=setting.rank, lora_alpha=2 * setting.rank, target_modules=upper or tuple(names))
    adapter = backbone.attach(lora, 0)
    backbone.adapters[adapter].frozen_depth = 0  # rows are new in a run, and none is cached
    batch = batch_near(rows, setting)
    brief = TrainingSettings(per_device_train_batch_size=len(batch), max_steps=1)
    trained = replace(
        learner,
        adapter=adapter,
        splits={"train": batch},
        training=brief,
        context=RoundContext(0, 0, "a probe"),
        optimizer_state={},
        together=None,
        models={},
    )
    try:
        kept, peak = _memory(trained)
        seconds = _fastest(trained) if timed else math.nan
        cost = _cost(trained) if count else None
    finally:
        backbone.detach(adapter)
    length = round(sum(map(len, batch)) / len(batch))
    real = setting._replace(rows=len(batch), length=length)
    return Probe(real, seconds, kept, peak, cost)


def _fastest(learner: AdaptedModel) -> float:
    """The seconds of the fastest of a few steps: other programs only add to it."""
    seconds: list[float] = []
    while len(seconds) < TIMED and (not seconds or seconds[0] < LONG):
        seconds.append(learner.fit(steps=1).seconds)
    return max(min(seconds), 1e-6)


def _cost(learner: AdaptedModel) -> StepCost:
    """The cost of a step on the learner's examples as one batch."""
    batch = learner.examples("train")
    return step_cost.count(*step_cost.typical(learner, learner.objective, batch, len(batch)))


def _memory(learner: AdaptedModel) -> tuple[float, float | None]:
    """The bytes that a step keeps for its backward pass, and its peak above those before it."""
    kept: dict[tuple[int, int], int] = {}
    own = {p.data_ptr() for p in learner.backbone.model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            size = tensor.numel() * tensor.element_size()
            kept[tensor.data_ptr(), size] = size
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        peak = peak_above(learner.backbone, lambda: learner.fit(steps=1))
    return float(sum(kept.values())), peak


def peak_above(backbone: Backbone, work: Callable[[], object]) -> float | None:
    """The most bytes that some work holds above those before it; None if the system does not tell.

    They are those of a GPU if the model is there.
    """
    if backbone.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(backbone.device)
        before = torch.cuda.memory_allocated(backbone.device)
        work()
        return float(torch.cuda.max_memory_allocated(backbone.device) - before)
    release()  # what earlier work has left would hide a part of this one's peak
    told, before = reset_peak(), held_memory()
    work()
    return float(max(0, peak_memory() - before)) if told else None


def fitted(probes: Sequence[Probe], devices: Mapping[str, Machine] = {}) -> StepModel:
    """The model of measured steps. devices: as in `measured`."""
    terms = np.array([_kept_terms(probe.setting) / max(probe.kept, 1.0) for probe in probes])
    scale = np.maximum(terms.max(axis=0), 1e-300)
    kept: Vector = nnls(terms / scale, np.ones(len(probes)))[0] / scale
    largest = max(probes, key=lambda probe: probe.kept)
    ratio = RATIO
    if largest.peak is not None and largest.kept:
        ratio = min(max(largest.peak / largest.kept, RATIOS[0]), RATIOS[1])
    seconds = [(probe.setting, probe.seconds) for probe in probes if not math.isnan(probe.seconds)]
    costs = [(probe.setting, probe.cost) for probe in probes if probe.cost]
    simulated = {
        name: cost_model.fitted([(setting, machine.step(own).total) for setting, own in costs])
        for name, machine in devices.items()
    }
    cost = cost_model.fitted(seconds) if seconds else next(iter(simulated.values()))
    return StepModel(cost, len(probes), kept, ratio, simulated, timed=bool(seconds))


def _kept_terms(setting: StepSetting) -> Vector:
    tokens = float(setting.rows * setting.length)
    adapters = tokens * setting.rank * setting.depth
    return np.array([tokens, tokens * setting.depth, tokens * setting.length, adapters])
