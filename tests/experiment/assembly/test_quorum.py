"""Clients rely on no more updates than an honest server combines in each of its rounds."""

import pytest

from hanse.experiment.assembly import quorum
from hanse.experiment.schema import Experiment
from hanse.federation.client_sampling import fewest_replies

SILOS = 10


@pytest.mark.parametrize("least", [1.0, 0.6, 4, 20])
@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("over_selection", [1.0, 1.5])
def test_a_server_combines_what_it_has_promised(
    least: float, fraction: float, over_selection: float
) -> None:
    deployment = {"quorum": least, "over_selection": over_selection}
    settings = {"num_clients": SILOS, "fraction_train": fraction, "deployment": deployment}
    experiment = Experiment.model_validate(settings)
    promised, needed = quorum.promised(experiment, SILOS), experiment.deployment.needed(SILOS)
    joined = range(needed, SILOS + 1)  # a run begins without those who are late
    combined = [fewest_replies(needed, silos, fraction) for silos in joined]
    assert promised == min(combined) == combined[0]
    if fraction == 1.0:
        assert {*combined} == {needed}


def test_all_silos_are_promised_by_default() -> None:
    assert quorum.promised(Experiment.model_validate({}), SILOS) == SILOS


@pytest.mark.parametrize(("links", "expected"), [(None, 1), ({"latency_ms": 5}, 3)])
def test_a_simulation_keeps_to_its_quorum_with_links(links: object, expected: int) -> None:
    settings = {"num_clients": 4, "links": links, "deployment": {"quorum": 3}}
    assert quorum.simulated(Experiment.model_validate(settings)) == expected
