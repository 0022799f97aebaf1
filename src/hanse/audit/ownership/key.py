"""An owner's key: the secret from which a mark, its bits and its trigger prompts follow.

The key is drawn once, in the file that holds it, and stays there: no message has a place for it.
What others may have is its commitment, a hash that says nothing about the secret.
"""

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from hanse import atomic_files
from hanse.errors import UserError
from hanse.security import keys
from hanse.tensors import json_text

FORMAT = "hanse-ownership-key/2"
DOMAIN = b"hanse ownership commitment 1\0"  # makes the hash invalid for any other purpose
ROOT = b"hanse ownership root 2\0"  # of the secret bytes, which no commitment has
LARGEST = 64 * 1024  # bytes of a key's file
LEAST_BITS, MOST_BITS = 32, 4096  # fewer could not prove anything, even if all were right
MOST_TRIGGERS = 1000
LONGEST_OWNER, LONGEST_PATTERN = 80, 4096  # characters

Place = Literal["product", "weights"]
PLACES: tuple[Place, ...] = get_args(Place)


@dataclass(frozen=True)
class OwnershipKey:
    """The secret of one mark, and what the owner has decided about it.

    owner: a name of 1 to 80 printable characters. seed: 32 secret bytes, as hex.
    bits: of the mark in the tensors.
    place: "product" for LoRA's products B·A, "weights" for tensors as they are.
    tensors: a pattern of the names of the layers (product) or tensors (weights).
    triggers: the number of secret prompts with secret answers; 0: none.
    """

    owner: str
    seed: str
    bits: int = 64
    place: Place = "product"
    tensors: str = "*"
    triggers: int = 0

    def __post_init__(self) -> None:
        self._check_texts()
        if not LEAST_BITS <= self.bits <= MOST_BITS:
            raise ValueError(
                f"the mark has {self.bits} bits; it can have {LEAST_BITS} to {MOST_BITS}, since "
                "fewer prove nothing"
            )
        if not 0 <= self.triggers <= MOST_TRIGGERS:
            raise ValueError(f"there are {self.triggers} triggers; 0 to {MOST_TRIGGERS} can be")
        if self.place not in PLACES:
            raise ValueError(f"the place is {self.place!r:.40}; it can be {' or '.join(PLACES)}")
        if len(self.seed) != 64 or len(bytes.fromhex(self.seed)) != 32:
            raise ValueError("the seed is not 32 bytes")

    def _check_texts(self) -> None:
        if not is_owner(self.owner):
            raise ValueError(
                f"the owner is {self.owner!r:.90}; it can be 1 to {LONGEST_OWNER} printable "
                "characters"
            )
        if not self.tensors.strip() or len(self.tensors) > LONGEST_PATTERN:
            raise ValueError(
                f"the pattern of the tensors is {self.tensors!r:.40}; it can have 1 to "
                f"{LONGEST_PATTERN} characters, such as *, which matches all"
            )

    @property
    def commitment(self) -> str:
        """The hash that binds its owner to this key, without showing anything of it."""
        return hashlib.sha256(DOMAIN + _text(asdict(self))).hexdigest()

    def derive(self, purpose: str, size: int = 8) -> bytes:
        """Secret bytes for one purpose; nothing else follows from them (SHAKE-256).

        They follow from the whole key: with one seed, another pattern, place, owner or number has
        other directions and bits, so that nobody can choose a pattern after looking at a model.
        """
        root = hashlib.sha256(ROOT + _text(asdict(self))).digest()
        return hashlib.shake_256(root + purpose.encode()).digest(size)

    def signs(self) -> list[int]:
        """The bits of the mark, each −1 or 1."""
        data = int.from_bytes(self.derive("bits", -(-self.bits // 8)), "little")
        return [1 if data >> i & 1 else -1 for i in range(self.bits)]

    def __repr__(self) -> str:
        return f"OwnershipKey({self.owner!r}, commitment {self.commitment[:16]}…)"


def is_owner(text: object) -> bool:
    """True for a name that an owner can have."""
    return isinstance(text, str) and text.isprintable() and 0 < len(text.strip()) <= LONGEST_OWNER


def draw(owner: str, **choices: Any) -> OwnershipKey:
    """A new key; raises UserError for choices that cannot be."""
    try:
        return OwnershipKey(owner, secrets.token_hex(32), **choices)
    except ValueError as error:
        raise UserError(f"{error}.") from None


def write(file: Path, key: OwnershipKey) -> None:
    """Write a key that only its owner can read; raises UserError if the file exists."""
    if file.exists():
        raise UserError(
            f"{file} exists already, and models may be marked by the key in it; name another file."
        )
    values = asdict(key)
    content = {"format": FORMAT, **values, "sha256": hashlib.sha256(_text(values)).hexdigest()}
    atomic_files.write(file, json.dumps(content, indent=2).encode() + b"\n", private=True)


def read(file: Path) -> OwnershipKey:
    """The key in a file; raises UserError if it is missing, damaged, or readable by others."""
    keys.refuse_readable(file)
    try:
        with file.open("rb") as handle:
            values = json_text.parse_object(handle.read(LARGEST))
    except OSError as error:
        raise UserError(f"the key {file} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        values = {}
    form, digest = values.pop("format", None), values.pop("sha256", None)
    if isinstance(form, str) and form.startswith("hanse-ownership-key/") and form != FORMAT:
        raise UserError(
            f"{file} has the format {form:.40}, and this hanse reads {FORMAT}; install the version "
            "that made it."
        )
    if form != FORMAT or digest != hashlib.sha256(_text(values)).hexdigest():
        raise UserError(
            f"{file} is damaged, or no key that `hanse ownership key` has made; bring back a copy."
        )
    try:
        if values.keys() != {f.name for f in fields(OwnershipKey)}:
            raise ValueError("it lacks something")
        return OwnershipKey(**values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged: {error}; bring back a copy.") from None


def _text(values: Any) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
