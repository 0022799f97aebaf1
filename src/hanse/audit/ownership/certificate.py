"""Certificates of ownership: what an owner states of a key and an adapter, signed with its kit.

A certificate binds the owner's name, the commitment to the key, the adapter's files and the
detection. Whoever has the signer's public file sees who has stated it and of which files. That the
bits are there can only be recounted with the key, which its owner shows to whom it trusts: the
commitment shows that it is the same one.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.verification import Detection
from hanse.content_hash import content_hash
from hanse.errors import UserError
from hanse.learners.injection.adapter_layout import WEIGHTS, folders

FORMAT = "hanse-ownership/1"


def adapter_files(adapter: Path) -> dict[str, str]:
    """The SHA-256 of an adapter's files of tensors, by their names in its folder."""
    try:
        files = [place / WEIGHTS for place in folders(adapter)]
        return {str(file.relative_to(adapter)): content_hash(file) for file in files}
    except (OSError, ValueError) as error:
        raise UserError(f"{adapter} holds no adapter that can be read ({error}).") from None


def statement(
    key: OwnershipKey, adapter: Path | None = None, detection: Detection | None = None
) -> dict[str, Any]:
    """What an owner states; without an adapter, that it has the key at this time.

    The time is the signer's word; another's date on the file proves it.
    """
    record: dict[str, Any] = {
        "format": FORMAT,
        "owner": key.owner,
        "commitment": key.commitment,
        "place": key.place,
        "tensors": key.tensors,
        "bits": key.bits,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if adapter is not None and detection is not None:
        record |= {"files": adapter_files(adapter)}
        record |= {"right_bits": detection.right, "p_value": detection.p_value}
    return record


def summary(record: dict[str, Any]) -> str:
    """A certificate's claim in words."""
    owner, bits = f"{record['owner']!s:.80}", record["bits"]
    if "files" not in record:
        return f"{owner} has a key of {bits} bits"
    return f"{record['right_bits']} of {bits} bits of the key of {owner} are in these files"


def refuse_other(
    record: dict[str, Any],
    file: Path,
    adapter: Path | None = None,
    key: OwnershipKey | None = None,
    detection: Detection | None = None,
) -> None:
    """Raise UserError unless a signed record is a certificate of this adapter, and of this key."""
    if record.get("format") != FORMAT or not {"owner", "commitment", "bits", "time"} <= {*record}:
        raise UserError(
            f"{file} is no certificate of ownership that this hanse reads ({FORMAT}); install the "
            "version that made it."
        )
    if adapter is not None and "files" not in record:
        raise UserError(
            f"{file} states that a key exists, and nothing of an adapter; ask for a certificate of "
            "this adapter, or leave the folder out."
        )
    if adapter is not None and record["files"] != adapter_files(adapter):
        raise UserError(
            f"{file} is a certificate of other files than those of {adapter}; bring the adapter "
            "that it was made for."
        )
    if key is not None and record.get("commitment") != key.commitment:
        raise UserError(f"{file} commits its owner to another key than this one; bring that one.")
    if detection is not None and record.get("right_bits", detection.right) != detection.right:
        raise UserError(
            f"{file} states {record['right_bits']} right bits, and the key finds "
            f"{detection.right}; do not trust it."
        )
