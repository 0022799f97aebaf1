"""deploy/compose.yaml, as far as it can be looked at without containers."""

import re
from typing import Any

import yaml
from typer.main import get_command

from hanse.cli.main import app
from samples import ROOT


def test_its_commands_and_options_exist() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    assert set(services) == {"server", "north", "south"}
    group: Any = get_command(app)
    for service in services.values():
        [name] = re.findall(r"exec hanse (\w+)", service["command"])
        command = group.get_command(None, name)
        _, _, words = service["command"].partition("exec hanse")
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[\w-]+", words)) <= known
        port = re.search(r"--status-port (\d+)", service["command"])
        assert port is not None and f":{port[1]}/healthz" in service["healthcheck"]["test"][-1]


def test_its_server_has_a_kit_since_others_can_reach_it() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    assert "--host 0.0.0.0" in services["server"]["command"]
    assert "--kit" in services["server"]["command"]
