"""Every algorithm of the package with settings that suit a toy, found by listing the folder."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hanse import registry
from hanse.federation.interfaces.algorithm import Algorithm, Server
from hanse.learners.training.settings import TrainingSettings


class Case(NamedTuple):
    """An algorithm with settings that suit the toy, where the defaults suit large models."""

    name: str
    settings: Mapping[str, Any]

    @property
    def adapter(self) -> dict[str, Any]:
        """What the toys train; most algorithms do as well without LoRA."""
        if self.name in WHOLE:
            return {"whole": True}
        form = {"rank": 2 if self.name in LORA else 0, "beside": BESIDE.get(self.name, "")}
        return {**form, "models": MODELS.get(self.name, {})}


# Variants of one algorithm that its defaults do not reach. An algorithm without a line here is
# tested with its defaults.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "fedprox": [{"mu": 0.1}],
    "diloco": [{}, {"fragments": 2}],
    "fedmkt": [{}, {"k": 2, "strategy": "weighted_mean"}],
    "fedper": [{"share": ("weight",)}],
    "fedkd": [{"hidden_states": True}],
    "fedcollm": [{"public_steps": 2, "initial_steps": 1}],
    "fedkseed": [{}, {"seeds": 64, "pro": True, "epsilon": 0.01}],
    "fedopt": [
        {"optimizer": "adam", "learning_rate": 0.1},
        {"optimizer": "yogi", "learning_rate": 0.1},
        {"optimizer": "adagrad", "learning_rate": 0.3},
        {"optimizer": "momentum", "learning_rate": 0.5, "beta_1": 0.5},
    ],
}
LORA = {  # those that are about LoRA's factors
    *("fedit", "ffa_lora", "rolora", "fedsa_lora", "flexlora", "flora", "fedex_lora"),
    *("hetlora", "lora_fair", "pftt", "fed_sb", "fedpipe"),
}
BESIDE = {"pftt": "layer.bottleneck_up.bias", "fed_sb": "layer.core_r"}  # what they look for
MODELS = {
    "fedkd": {"mentor": 6},
    "fedcollm": {"large": 6},
    "fedot": {"whole": 0},
}  # hidden widths of those beside
# Those that change all weights in place, which `fit` does not; tests of their own compare them with
# a sequential training.
WHOLE = {"fedkseed", "fedkseed_sums"}
PERSONAL = {"fedper", "fedsa_lora", "pftt"}  # those whose clients keep what the server never sees
FILES = tempfile.TemporaryDirectory(prefix="hanse-files-")  # it is removed when the tests end
CASES = [
    Case(name, settings)
    for name in registry.names("federation/algorithms")
    for settings in SETTINGS.get(name, [{}])
]
every_algorithm = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "-".join([case.name, *map(str, case.settings.values())])
)


def remembering(algorithm: Algorithm) -> TrainingSettings:
    """Training that keeps as much from round to round as the algorithm takes."""
    training = TrainingSettings(learning_rate=0.05, per_device_train_batch_size=4)
    if "adamw" not in algorithm.optimizers:
        momentum = 0.9 if "momentum" in algorithm.optimizers else 0.0
        training = replace(training, optim="sgd", momentum=momentum)
    return training if algorithm.resets_optimizer else replace(training, optimizer_state="keep")


def built(case: Case) -> Algorithm:
    """The algorithm, as an experiment would name it."""
    return registry.build("federation/algorithms", {case.name: dict(case.settings)})


def files_of(algorithm: Algorithm, server: Server) -> Mapping[str, Path]:
    """The files that the algorithm prepares, in a folder of their own."""
    return algorithm.prepare(server, Path(tempfile.mkdtemp(dir=FILES.name)))
