"""hanse doctor."""

from typing import Annotated

import typer
from rich.text import Text

from hanse.cli.options import console
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.planning import doctor as examination

STYLES = {"ok": "green", "missing": "yellow", "broken": "bold red"}


def doctor(
    hub: Annotated[bool, typer.Option("--hub", help="Contact the hub, too.")] = False,
) -> None:
    """Check this machine and list what is missing; exit code 1 if hanse cannot work."""
    findings = []
    for finding in examination.findings(hub):
        findings.append(finding)
        line = Text(f"{finding.state:<9}", STYLES[finding.state])
        line.append(f"{finding.what:<20} ", "default").append(finding.result, "default")
        if finding.advice:
            line.append(f"; {finding.advice}", "bold")
        console.print(line, soft_wrap=True)
    console.print(examination.recommendation(findings), style="bold", soft_wrap=True)
    if any(finding.state == "broken" for finding in findings):
        raise SystemExit(1)
