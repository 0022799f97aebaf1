"""The seconds of a round by kind of work, from what clients report and from the server's clock."""

import pytest

from hanse.journal.ledger import Ledger
from hanse.journal.round_costs import round_costs


def ledger(**numbers: float) -> Ledger:
    """A round in which the server has waited 10 seconds for one client."""
    result = Ledger()
    result.sent("c0", "train", 100)
    result.received("c0", "train", 50, numbers)
    result.seconds |= {"clients": 10.0, "serialization": 1.0, "round": 12.0}
    return result


@pytest.mark.parametrize(("remote", "waited"), [(True, "transport"), (False, "serialization")])
def test_what_clients_report_is_training_and_the_rest_is_on_the_way(
    remote: bool, waited: str
) -> None:
    seconds = round_costs(ledger(seconds=7.0, forward_seconds=7.0), remote).seconds
    assert seconds["forward"] == 7.0 and "clients" not in seconds
    assert seconds[waited] == pytest.approx(3.0 + (waited == "serialization"))


@pytest.mark.parametrize("remote", [True, False])
def test_without_reports_nobody_knows_what_clients_did(remote: bool) -> None:
    seconds = round_costs(ledger(), remote).seconds
    assert (seconds["clients"], seconds["transport"], seconds["serialization"]) == (10.0, 0.0, 1.0)
    assert seconds["aggregation"] == pytest.approx(1.0)
