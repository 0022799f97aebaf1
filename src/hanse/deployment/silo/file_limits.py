"""Limits on the files that a server sends: their total size, and the same files for a whole run."""

import hashlib
import json

from hanse import atomic_files
from hanse.deployment.silo.enforcement import PolicyEnforcer
from hanse.errors import UserError
from hanse.federation.delivery.files import offered
from hanse.federation.messages import Request

GB = 10**9  # bytes


def admit_files(enforcer: PolicyEnforcer, request: Request) -> None:
    """Raise JobRefusedError unless the policy allows the files that a request offers.

    The first offer of a run is recorded on disk, and no other is allowed in that run.
    """
    try:
        files = offered(request)
    except UserError as error:
        raise enforcer.refused(f"{enforcer.name} refuses the server's files: {error}") from None
    total = sum({file.digest: file.size for file in files}.values())
    if total > enforcer.policy.max_file_gb * GB:
        raise enforcer.refused(
            f"{enforcer.name} refuses the server's files: they have {total:,} bytes, and its "
            f"policy has max_file_gb {enforcer.policy.max_file_gb:g}."
        )
    content = json.dumps([(file.name, file.digest, file.size) for file in files])
    offer, record = hashlib.sha256(content.encode()).hexdigest(), enforcer.file("offered")
    former = atomic_files.read(record)
    if former is None:
        atomic_files.write(record, offer.encode(), private=True)
    elif former.decode(errors="replace") != offer:
        raise enforcer.refused(
            f"{enforcer.name} refuses the server's files: others were offered before in this run."
        )
