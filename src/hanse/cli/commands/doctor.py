"""hanse doctor."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from hanse.cli.options import console
from hanse.cli.output_files import refuse_unwritable
from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.journal import record_files
    from hanse.planning import doctor as examination
    from hanse.planning.devices import profile as device_profile
    from hanse.planning.devices import profile_text

STYLES = {"ok": "green", "missing": "yellow", "broken": "bold red"}


def doctor(
    hub: Annotated[bool, typer.Option("--hub", help="Contact the hub, too.")] = False,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Measure this machine's profile instead, and write it to a file."
        ),
    ] = None,
) -> None:
    """Check this machine and list what is missing; exit code 1 if hanse cannot work."""
    if profile is not None:
        _profile(profile)
        return
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


def _profile(file: Path) -> None:
    """Measure this machine's profile, print it, and write it to a file."""
    if file.is_file():
        raise UserError(f"{file} exists already; name another file with --profile.")
    refuse_unwritable(file)
    measured = device_profile.measure()
    for line in profile_text.lines(measured):
        console.print(line, soft_wrap=True)
    record_files.write(file, measured)
    console.print(f"profile  {file}", soft_wrap=True)
