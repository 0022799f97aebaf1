"""A part from outside the package: client-level privacy whose noise follows from the round."""

from dataclasses import dataclass
from unittest import mock

import torch

from hanse.federation.interfaces.results import Aggregate
from hanse.federation.noise import os_noise
from hanse.federation.privacy.client_dp import ClientDp
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors


def random_bytes(count: int, context: RoundContext) -> bytes:
    """Bytes in place of the operating system's: the same in each run, so they hide nothing."""
    words = torch.randint(-(2**62), 2**62, [count // 8], generator=context.generator("noise"))
    return words.numpy().tobytes()


@dataclass(frozen=True)
class RepeatableDp(ClientDp):
    """ClientDp for tests that compare a run with a repeated one."""

    def finish(
        self, aggregate: Aggregate, state: Tensors, context: RoundContext
    ) -> tuple[Aggregate, Tensors]:
        with mock.patch.object(os_noise, "random_bytes", random_bytes):
            return super().finish(aggregate, state, context)
