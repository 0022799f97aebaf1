"""Limits on the files that a server sends: their total size, and the same files for a whole run."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from hanse import atomic_files
from hanse.deployment.silo.enforcement import PolicyEnforcer
from hanse.errors import UserError
from hanse.federation.delivery.files import OfferedFile, offered
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
    if not is_first_offer(files, enforcer.file("offered")):
        raise enforcer.refused(
            f"{enforcer.name} refuses the server's files: others were offered before in this run."
        )


def is_first_offer(files: Sequence[OfferedFile], record: Path) -> bool:
    """True if these files are those in the record of a run's first offer, or there is none yet.

    record: the file, which is written with the first offer.
    """
    content = json.dumps([(file.name, file.digest, file.size) for file in files])
    offer = hashlib.sha256(content.encode()).hexdigest()
    if (former := atomic_files.read(record)) is None:
        atomic_files.write(record, offer.encode(), private=True)
        return True
    return former.decode(errors="replace") == offer
