"""Contents of messages of a secure sum: keys, shares and signatures, as tensors of bytes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hanse.federation.interfaces.aggregator import RefusalError
from hanse.tensors.named import from_bytes, to_bytes


def to_tensors(contents: Mapping[str, bytes]) -> dict[str, Tensor]:
    """Bytes by name as tensors of uint8."""
    return {name: from_bytes(content) for name, content in contents.items()}


def received(data: Tensor) -> bytes:
    """The bytes in a tensor that came from the server; raises RefusalError for any other tensor."""
    if data.dtype != torch.uint8:
        raise RefusalError(
            f"the server sent numbers of {str(data.dtype).removeprefix('torch.')} where bytes are "
            "due in a secure sum; look after the server."
        )
    return to_bytes(data)
