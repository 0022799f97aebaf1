"""A learner makes the share of its steps that an instruction asks for, and never more."""

from dataclasses import replace
from pathlib import Path

import pytest

from clients import client, rows
from hanse.errors import UserError
from hanse.federation.interfaces.trained_tensors import SHARE
from hanse.learners.backbone import Backbone
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings


@pytest.fixture(scope="module")
def backbone(tiny_llama: Path) -> Backbone:
    return load(BaseModelSettings(str(tiny_llama), bf16=False))


@pytest.mark.parametrize(("share", "steps"), [(1.0, 10), (0.5, 5), (0.37, 3), (0.01, 1)])
def test_a_share_of_the_steps_is_made(backbone: Backbone, share: float, steps: int) -> None:
    learner = client(backbone, "a", rows(1, 20), max_steps=None, num_train_epochs=2.0)
    learner.configure({SHARE: share})
    assert learner.fit().steps == steps


def test_more_than_all_steps_and_other_numbers_are_refused(backbone: Backbone) -> None:
    learner = client(backbone, "a", rows(1, 20))
    for share in (0.0, -1.0, 1.01, float("nan")):
        with pytest.raises(UserError, match="a share is above 0 and at most 1"):
            learner.configure({SHARE: share})


def test_a_training_that_hides_rows_keeps_its_steps(
    backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    learner = replace(client(backbone, "a", rows(1, 20)), sealed=True)
    settings = learner.training
    learner.configure({SHARE: 0.5})
    assert learner.training is settings and "all steps are made" in caplog.text
