"""All checks of a silo's policy on a job, one after the other, as the guard makes them."""

from pathlib import Path

from hanse.deployment.silo import settings
from hanse.deployment.silo.enforcement import PolicyEnforcer
from hanse.deployment.silo.job import Job, RowCounts
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.refusals import model_refusals, row_refusals, settings_refusals
from hanse.deployment.silo.settings import SiloSettings


def refusals(policy: Policy, job: Job, model_hash: str | None, rows: RowCounts) -> list[str]:
    """The reasons of a policy against a job with these numbers of rows."""
    return [
        *settings_refusals(policy, job),
        *model_refusals(policy, job.experiment, model_hash),
        *row_refusals(policy, job.experiment, rows),
    ]


def check(enforcer: PolicyEnforcer, job: Job, model_hash: str | None, rows: RowCounts) -> None:
    """Raise JobRefusedError unless the policy allows a job with these numbers of rows."""
    enforcer.check_settings(job)
    enforcer.check_model(job, model_hash)
    enforcer.check_rows(job, rows)


OWN = r'template: "Review: {text}\nSentiment:"'  # what the experiment has, too


def silo(home: Path, policy: str = "{}", more: str = "", data: str = OWN) -> SiloSettings:
    """A silo with rows of its own."""
    home.mkdir(exist_ok=True)
    (home / "own.jsonl").write_text('{"text": "a film", "label": "good"}\n')
    (home / "silo.yaml").write_text(
        f"name: silo-1\nserver: 127.0.0.1:8000\ndata: {{path: own.jsonl, {data}}}\nstate: state\n"
        f"policy: {policy}\n{more}"
    )
    return settings.load(home / "silo.yaml")
