"""Simulated devices in an experiment: known ones by name, own ones by their figures, mistakes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from hanse.deployment.server.job_text import job_text
from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.devices import known, published
from hanse.experiment.devices.settings import DeviceSettings
from hanse.experiment.schema import Experiment
from hanse.simulation.baselines.variants import variants
from samples import ROOT


def experiment(**settings: Any) -> Experiment:
    return Experiment.model_validate(settings)


@pytest.mark.parametrize("name", published.PUBLISHED)
def test_each_published_figure_has_a_source_and_a_setting(name: str) -> None:
    device = known.find(name, {})
    for setting, (figure, source) in published.PUBLISHED[name].items():
        assert getattr(device, setting) == figure and len(source) > 10
        assert setting in device.source
    assert device.mfu is None and device.operator_us is None, "they are measured, not published"


def test_the_guide_lists_the_published_figures() -> None:
    page = (ROOT / "docs" / "edge-study.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert rows.keys() == published.PUBLISHED.keys()
    for name, row in rows.items():
        for setting in ("fp32_tflops", "bf16_tflops", "memory_gb", "bandwidth_gb_s", "watts"):
            figure = published.figures(name).get(setting)
            assert figure is None or f"{figure:g}" in row, f"{name}: {setting}"


def test_figures_of_datasheets() -> None:
    a100 = known.find("a100", {})
    assert (a100.fp32_tflops, a100.bf16_tflops, a100.bandwidth_gb_s) == (19.5, 312, 2039)
    assert (a100.memory_gb, a100.watts, a100.unknown) == (80, 400, ("up_mbps", "down_mbps"))
    assert known.find("t4", {}).bf16_tflops is None, "its tensor cores have no bfloat16"


def test_what_an_own_device_leaves_out_of_a_known_name_is_the_published_figure() -> None:
    own = experiment(devices={"a100": {"up_mbps": 50, "mfu": 0.4}, "mine": {"fp32_tflops": 1}})
    device = own.devices["a100"]
    assert (device.up_mbps, device.mfu, device.fp32_tflops) == (50, 0.4, 19.5)
    assert device.source.endswith("up_mbps: written in the experiment")
    assert own.devices["mine"].unknown[0] == "bf16_tflops"
    again = Experiment.model_validate(own.resolved())
    assert again.devices == own.devices


def test_a_client_has_a_device_of_its_own() -> None:
    own = experiment(device="t4", clients={"silo-2": {"device": "a100"}})
    assert own.for_client("silo-2").device == "a100" and own.for_client("silo-1").device == "t4"
    assert own.is_timed and own.has_devices and not own.has_links
    only = experiment(clients={"silo-2": {"device": "a100"}})
    assert only.is_timed and not experiment(clients={"silo-2": {"device": None}}).is_timed
    assert not experiment(device="none").is_timed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("device: jetson-orin", "did you mean 'jetson-agx-orin' or 'jetson-orin-nano'?"),
        ("device: a10", "did you mean 'a100'?"),
        ("device: cuda", "known are a100, t4,"),
        ("clients: {silo-1: {device: A100x}}", "clients.silo-1: device names 'A100x'"),
        ("devices: {mine: {}}", "a device needs fp32_tflops or bf16_tflops"),
        ("devices: {mine: {fp32_tflops: 0}}", "devices.mine.fp32_tflops is 0"),
        ("devices: {mine: {fp32_tflop: 1}}", "did you mean 'fp32_tflops'?"),
        ("devices: {a100: {mfu: 1.5}}", "devices.a100.mfu is 1.5"),
        ("devices: 3", "devices is 3"),
        ("{device: t4, links: {seconds_per_step: 1}}", "leave one of them out"),
        ("{clients: {silo-1: {device: t4}}, links: {seconds_per_step: [0, 1]}}", "leave one of"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(text + "\n")
    with pytest.raises(UserError) as refused:
        loading.load(file, ())
    assert words in str(refused.value)


def test_a_device_with_links_that_take_no_step_is_fine() -> None:
    own = experiment(device="t4", links={"up_mbps": 5, "seconds_per_step": 0})
    assert own.device == "t4"


def test_silos_are_sent_no_devices() -> None:
    devices = {"mine": {"fp32_tflops": 1}}
    own = experiment(device="mine", devices=devices, clients={"silo-2": {"device": "t4"}})
    sent = yaml.safe_load(job_text(own))
    assert not {"device", "devices", "links"} & sent.keys()
    assert sent["clients"] == {"silo-2": {}}


def test_baselines_have_devices_in_the_federation_alone(tmp_path: Path) -> None:
    own = experiment(device="t4", clients={"silo-2": {"device": "a100"}})
    sizes = dict.fromkeys(own.client_names, 10)
    timed = {v.kind: v.experiment.is_timed for v in variants(own, sizes, 0, tmp_path)}
    assert timed.pop("federated") and not any(timed.values())


def test_a_device_needs_a_peak() -> None:
    with pytest.raises(ValueError, match="needs fp32_tflops"):
        DeviceSettings(memory_gb=8)
