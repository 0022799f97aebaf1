"""Ctrl-C during the rounds of a run."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from hanse.experiment.assembly.execute import stoppable


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_ctrl_c_sets_the_event_and_the_second_one_stops() -> None:
    with pytest.raises(KeyboardInterrupt), stoppable() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(10)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stoppable() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.wait(0.1)
