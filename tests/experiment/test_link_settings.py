"""The setting `links`: sections, lists, overrides of single clients, and mistakes."""

from pathlib import Path
from typing import Any

import pytest

from hanse.deployment.server.job_text import job_text
from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.schema import Experiment
from hanse.simulation.baselines.variants import variants


def experiment(**settings: Any) -> Experiment:
    return Experiment.model_validate(settings)


def test_without_the_setting_there_are_no_links() -> None:
    assert not experiment().has_links and not experiment(links="none").has_links
    assert experiment(links={}).has_links
    assert experiment(clients={"silo-1": {"links": {"up_mbps": 1}}}).has_links


def test_a_client_overrides_single_settings() -> None:
    links = {"up_mbps": [10, 1], "latency_ms": 40}
    own = experiment(links=links, clients={"silo-2": {"links": {"latency_ms": 300}}})
    changed = own.for_client("silo-2").links
    assert changed is not None
    assert changed.at(1) | {"latency_ms": 0} == own.links.at(1) | {"latency_ms": 0}  # type: ignore[union-attr]
    assert changed.at(1)["latency_ms"] == 300 and changed.at(1)["up_mbps"] == 1
    assert Experiment.model_validate(own.resolved()).links == own.links


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("links: {up_mbps: 0}", "links.up_mbps is 0"),
        ("links: {up_mbps: [10, -1]}", "links.up_mbps.1 is -1"),
        ("links: {up_mbps: []}", "links.up_mbps is []"),
        ("links: {latency_ms: [fast]}", "links.latency_ms.0 is 'fast'"),
        ("links: {loss: 0.9}", "links.loss is 0.9"),
        ("links: {upmbps: 5}", "did you mean 'up_mbps'?"),
        ("links: 10", "it is a section with the settings up_mbps, down_mbps"),
        ("clients: {silo-1: {links: {latency_ms: fast}}}", "clients.silo-1.links.latency_ms"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, yaml: str, words: str) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml + "\n")
    with pytest.raises(UserError) as refused:
        loading.load(file, ())
    assert words in str(refused.value)


def test_silos_are_sent_no_links() -> None:
    own = experiment(links={"up_mbps": 1}, clients={"silo-2": {"links": {"loss": 0.1}}})
    assert "links" not in job_text(own)


def test_baselines_have_links_in_the_federation_alone(tmp_path: Path) -> None:
    own = experiment(links={"up_mbps": 1}, clients={"silo-2": {"links": {"loss": 0.1}}})
    sizes = dict.fromkeys(own.client_names, 10)
    linked = {v.kind: v.experiment.has_links for v in variants(own, sizes, 0, tmp_path)}
    assert linked.pop("federated") and not any(linked.values())
