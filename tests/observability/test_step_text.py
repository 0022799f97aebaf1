"""Steps as text: every kind of work has its words."""

import pytest

from hanse.federation.messages import AGREED
from hanse.observability import step_text
from hanse.observability.steps import (
    Activity,
    Job,
    SiloActivity,
    SiloState,
    Training,
    WaitingForSilos,
    Work,
)


@pytest.mark.parametrize("activity", Activity)
def test_every_activity_has_a_title(activity: Activity) -> None:
    assert step_text.title(Work(activity, "smollm2"))


@pytest.mark.parametrize(
    ("job", "title"),
    [
        (Work(Activity.LOADING_MODEL, "{0}"), "loading {0}"),
        (Work(Activity.LOADING_DATASET, "imdb"), "loading imdb from the hub"),
        (Work(Activity.SENDING_FILE, "a to b", 1, 2, "MB"), "sending files: a to b"),
        (Work(Activity.SCORING, "validation"), "scoring validation"),
        (Training(()), "training on the server"),
        (Training(("silo-1",)), "training silo-1"),
        (Training(("silo-1", "silo-2")), "training 2 clients"),
    ],
)
def test_a_title_names_the_subject(job: Job, title: str) -> None:
    assert step_text.title(job) == title
    assert step_text.detail(job) == ""


def test_silos_that_a_server_waits_for() -> None:
    step = WaitingForSilos(
        (
            SiloActivity("a", SiloState.WORKING, 11.2, "train"),
            SiloActivity("b", SiloState.WORKING, 2.0, AGREED),
            SiloActivity("c", SiloState.WORKING, 3.0, "evaluate"),
            SiloActivity("d", SiloState.WORKING, 4.0, "keys"),
            SiloActivity("e", SiloState.GONE, 59.6),
            SiloActivity("f", SiloState.NEVER_SEEN),
            SiloActivity("g", SiloState.IDLE),
        ),
        of=9,
        needed=8,
    )
    assert step_text.title(step) == (
        "paused, since a round needs 8: waiting for 7 of 9: a, b, c, d, e, f, g"
    )
    assert step_text.detail(step) == (
        "a training for 11 s; b training for 2 s; c evaluating for 3 s; "
        "d in the phase keys for 4 s; e gone, last seen 60 s ago; f never seen; g there"
    )
