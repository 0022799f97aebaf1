"""Tests of the ledger: what it writes can be read again."""

from hanse.journal import record_files
from hanse.journal.ledger import Ledger
from hanse.journal.records import MOST_ROUND, ClientRecord


def test_a_late_reply_to_a_round_that_never_was_can_be_read_again() -> None:
    """A hostile client may claim any round, and a run must be able to resume afterwards."""
    ledger = Ledger()
    ledger.refused("c0", "train", 2**53, 100)
    (record,) = ledger.records
    assert record_files.parse(record_files.line(record), ClientRecord).late == MOST_ROUND
