"""Texts that bind derived keys to their purpose, equal at the clients and the server."""

B_TEXT = b"own mask"  # of a client's own mask; its seed is new in each try


def pair_text(round: int, a: str, b: str) -> bytes:
    """The purpose of the mask of two clients, in whatever order."""
    first, second = sorted((a, b))
    return f"mask of a pair\0{round}\0{first}\0{second}".encode()


def box_text(round: int, sender: str, receiver: str) -> bytes:
    """The purpose of the key of the one box from a sender to a receiver."""
    return f"shares\0{round}\0{sender}\0{receiver}".encode()
