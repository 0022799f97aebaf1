"""All checks of a silo's policy on a job, one after the other, as the guard makes them."""

from hanse.deployment.silo.enforcement import PolicyEnforcer
from hanse.deployment.silo.job import Job, RowCounts
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.refusals import model_refusals, row_refusals, settings_refusals


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
