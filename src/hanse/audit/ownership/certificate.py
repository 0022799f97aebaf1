"""Certificates of ownership: what an owner states of a key and an adapter, signed with its kit.

A certificate binds the owner's name, the commitment to the key, the adapter's files and the
detection. Whoever has the signer's public file sees who has stated it and of which files. That the
bits are there can only be recounted with the key, which its owner shows to whom it trusts: the
commitment shows that it is the same one. Where the mark lies stays secret with the key.
"""

import re
from datetime import UTC, datetime
from math import isclose
from pathlib import Path
from typing import Any

from hanse.audit.ownership.chance import p_value
from hanse.audit.ownership.key import LEAST_BITS, MOST_BITS, OwnershipKey, is_owner
from hanse.audit.ownership.verification import Detection
from hanse.content_hash import content_hash
from hanse.errors import UserError
from hanse.learners.injection.adapter_layout import WEIGHTS, folders

FORMAT = "hanse-ownership/2"
HASH = re.compile("[0-9a-f]{64}")
OF_KEY = {"format": str, "owner": str, "commitment": str, "bits": int, "time": str}
OF_ADAPTER = {"files": dict, "right_bits": int, "p_value": float}


def adapter_files(adapter: Path) -> dict[str, str]:
    """The SHA-256 of an adapter's files of tensors, by their names in its folder."""
    try:
        files = [place / WEIGHTS for place in folders(adapter)]
        return {str(file.relative_to(adapter)): content_hash(file) for file in files}
    except (OSError, ValueError) as error:
        raise UserError(f"{adapter} holds no adapter that can be read ({error}).") from None


def statement(
    key: OwnershipKey,
    adapter: Path | None = None,
    detection: Detection | None = None,
    early: Path | None = None,
) -> dict[str, Any]:
    """The statement of an owner; without an adapter, that it has the key at this time.

    The time is the signer's word; another's date on the file proves it. early: the file of an
    earlier certificate of the key alone, whose SHA-256 is stated, too.
    """
    record: dict[str, Any] = {
        "format": FORMAT,
        "owner": key.owner,
        "commitment": key.commitment,
        "bits": key.bits,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if adapter is not None and detection is not None:
        record |= {"files": adapter_files(adapter)}
        record |= {"right_bits": detection.right, "p_value": detection.p_value}
    if early is not None:
        record |= {"early": content_hash(early)}
    return record


def summary(record: dict[str, Any]) -> str:
    """A certificate's claim in words."""
    owner, bits = record["owner"], record["bits"]
    if "files" not in record:
        return f"{owner} has a key of {bits} bits"
    return (
        f"{record['right_bits']} of {bits} bits of the key of {owner} are in these files, "
        f"p = {record['p_value']:.1e}"
    )


def refuse_other(
    record: dict[str, Any],
    file: Path,
    adapter: Path | None = None,
    key: OwnershipKey | None = None,
    detection: Detection | None = None,
) -> None:
    """Raise UserError unless a signed record is a certificate of this adapter, and of this key.

    One of a key alone is none of an adapter, but stands beside a key that the adapter is asked for.
    """
    _refuse_malformed(record, file)
    if adapter is not None and key is None and "files" not in record:
        raise UserError(
            f"{file} states that a key exists, and nothing of an adapter; ask for a certificate of "
            "this adapter, name the key with --key, or leave the folder out."
        )
    if adapter is not None and "files" in record and record["files"] != adapter_files(adapter):
        raise UserError(
            f"{file} is a certificate of other files than those of {adapter}; bring the adapter "
            "that it was made for."
        )
    if key is not None:
        _refuse_other_key(record, file, key)
    if detection is not None and record.get("right_bits", detection.right) != detection.right:
        raise UserError(
            f"{file} states {record['right_bits']} right bits, and the key finds "
            f"{detection.right}; do not trust it."
        )


def _refuse_other_key(record: dict[str, Any], file: Path, key: OwnershipKey) -> None:
    """Raise UserError for a certificate of another key, or with other words about this one."""
    if record["commitment"] != key.commitment:
        raise UserError(f"{file} commits its owner to another key than this one; bring that one.")
    stated, found = (record["owner"], record["bits"]), (key.owner, key.bits)
    if stated != found:
        raise UserError(
            f"{file} states a key of {stated[0]} with {stated[1]} bits, and this one is of "
            f"{found[0]} with {found[1]}; do not trust it."
        )


def _refuse_malformed(record: dict[str, Any], file: Path) -> None:
    """Raise UserError unless all fields of a record are there, and are what they should be."""
    if record.get("format") != FORMAT:
        raise UserError(
            f"{file} is no certificate of ownership that this hanse reads ({FORMAT}); install the "
            "version that made it."
        )
    wanted = OF_KEY | (OF_ADAPTER if record.keys() & OF_ADAPTER else {})
    bad = [n for n, kind in wanted.items() if type(record.get(n)) is not kind]
    bad += sorted(record.keys() - wanted - {"early"})
    if not bad:
        bad = [name for name, fits in _fits(record).items() if not fits]
    if bad:
        raise UserError(
            f"{file} is signed, but no certificate that `hanse ownership certify` makes "
            f"({bad[0]!r:.40}); do not trust it."
        )


def _fits(record: dict[str, Any]) -> dict[str, bool]:
    """True for each field, whose types are right, if its value can be; p is computed again."""
    bits, right = record["bits"], record.get("right_bits", 0)
    counts = LEAST_BITS <= bits <= MOST_BITS and 0 <= right <= bits
    hashes = [*record.get("files", {}).values(), record["commitment"]]
    hashes += [record["early"]] if "early" in record else []
    return {
        "owner": is_owner(record["owner"]),
        "time": _is_time(record["time"]),
        "a hash": all(isinstance(text, str) and HASH.fullmatch(text) for text in hashes),
        "bits": counts,
        "p_value": counts
        and ("p_value" not in record or isclose(record["p_value"], p_value(right, bits))),
    }


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
