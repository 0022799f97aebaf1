"""Lists of clients as bitmaps over their indices, which begin at 1: a byte for eight clients."""

from collections.abc import Iterable


def bitmap(indices: Iterable[int], clients: int) -> bytes:
    """The bitmap of these indices among 1 … clients: ⌈clients/8⌉ bytes."""
    bits = sum(1 << (index - 1) for index in set(indices))
    return bits.to_bytes(size(clients), "little")


def size(clients: int) -> int:
    """The bytes of a bitmap of so many clients."""
    return (clients + 7) // 8


def listed(bits: bytes, index: int) -> bool:
    """True if a bitmap has an index; False for an index beyond its end."""
    return bool(int.from_bytes(bits, "little") >> (index - 1) & 1)


def last(bits: bytes) -> int:
    """The largest index in a bitmap; 0 if it has none."""
    return int.from_bytes(bits, "little").bit_length()


def count(bits: bytes) -> int:
    """The number of indices in a bitmap."""
    return int.from_bytes(bits, "little").bit_count()
