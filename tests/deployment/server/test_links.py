"""A server says that simulated links mean nothing to it."""

import logging
from pathlib import Path
from typing import Any

import pytest

from hanse.deployment.server import serve
from hanse.deployment.server.status import Watch
from hanse.errors import UserError
from hanse.experiment.schema import Experiment


@pytest.mark.parametrize(("links", "lines"), [({"up_mbps": 1}, 1), (None, 0)])
def test_links_are_said_to_have_no_effect(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    links: dict[str, float] | None,
    lines: int,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise UserError("no model here.")

    monkeypatch.setattr(serve, "simulate", refuse)
    experiment = Experiment.model_validate({"links": links})
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match="no model here"):
        serve._serve(experiment, serve.Address(), None, Watch(tmp_path, 1, ["silo-1"]))
    assert sum("links has no effect here" in line for line in caplog.messages) == lines
