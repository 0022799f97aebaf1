"""The fixed-point grid of secure sums: numbers become words whose sums never wrap around.

Masks are uniform only in a finite ring, so numbers are rounded to multiples of a step, which all
clients of a round share, and travel as words modulo a power of two.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.sums import WEIGHT
from hanse.tensors.named import Layout, Tensors, largest

Words = dict[str, NDArray[np.unsignedinteger]]

COARSE = 2.0  # steps that a client's numbers that are not 0 have on average, at least
CLIPPED = "#clipped"  # the count of clipped numbers, beside the names of a summand
TENSOR_WORDS = {16: np.uint16, 32: np.uint32, 64: np.uint64}
SIGNED = {16: torch.int16, 32: torch.int32, 64: torch.int64}
LONG = 64  # bits of the words of weights and numbers
# The largest weight, and the largest number times its share of the largest weight.
LARGEST_WEIGHT, LARGEST_NUMBER = 2.0**34, 2.0**24


@dataclass(frozen=True)
class Grid:
    """The grid of one round.

    clients: the most summands of a sum.
    bits: of the words of a tensor's numbers: 16, 32 or 64.
    clip: the largest absolute value of an update's number, for a client of the largest weight.
    weight_bound: the largest weight of a client.

    An update's number x of weight w becomes round(x·w / (weight_bound·step)), clipped to ±levels,
    where levels·clients < 2^(bits−2). A sum is therefore exact to half a step for each client. It
    leaves half of the words unused, so that masks that were not removed are seen.

    Tensors of integers are added as they are, modulo 2^bits: nothing is rounded or clipped. Their
    sums must be within ±`most_whole`, or they are refused like masks.
    """

    clients: int
    bits: int
    clip: float
    weight_bound: float

    @property
    def levels(self) -> int:
        """The largest word of one client; `clients` of them do not wrap around."""
        return self.most_whole // self.clients

    @property
    def most_whole(self) -> int:
        """The largest absolute value of a sum of whole numbers."""
        return (1 << (min(self.bits, 55) - 2)) - 1  # float64 holds 53 bits

    @property
    def step(self) -> float:
        """The distance of two neighbouring values of an update's numbers."""
        return self.clip / self.levels

    @property
    def numbers(self) -> tuple[float, ...]:
        """The parameters that all clients of a round must agree on."""
        return float(self.clients), float(self.bits), self.clip, self.weight_bound

    def layout(self, expected: Layout) -> dict[str, Tensor]:
        """The layout of encoded summands, from that of summands."""
        forms = {name: largest(form) for name, form in expected.items()}
        forms |= {CLIPPED: torch.empty((), device="meta")}
        return {
            name: torch.empty_like(forms[name], dtype=SIGNED[self._bits(name)], device="meta")
            for name in sorted(forms)
        }

    def encode(self, summand: Tensors) -> Words:
        """The words of a summand, in the order of their names.

        Raises UserError for a number that is not finite, a weight above the bound, a weight or
        weighted number that no word can hold, or numbers that the grid would round to nothing.
        """
        weight = float(summand[WEIGHT])
        if weight > self.weight_bound:
            raise UserError(
                f"this client's weight is above {self.weight_bound:g}, the largest that the server "
                "announced; look after the settings of the server."
            )
        clipped, words, squares, others = 0, {}, 0.0, 0
        for name, tensor in summand.items():
            if not tensor.is_floating_point():
                words[name] = self._whole_words(name, tensor)
                continue
            steps = tensor.double() / self._step(name)
            if not bool(steps.isfinite().all()):
                raise UserError(f"this client's update has numbers in {name} that are not finite.")
            if name.startswith("#"):
                self._refuse_large(name, steps)
            else:
                clipped += int((steps.abs() > self.levels + 0.5).sum())
                squares += float(steps.square().sum())
                others += int((steps != 0).sum())
                steps = steps.clamp(-self.levels, self.levels)
            words[name] = self._words(name, steps)
        _refuse_coarse(squares, others)
        count = torch.tensor(clipped, dtype=torch.float64).clamp(max=LARGEST_WEIGHT)
        words[CLIPPED] = self._words(CLIPPED, count / self._step(CLIPPED))
        return {name: words[name] for name in sorted(words)}

    def decode(self, words: Words, whole: Collection[str] = ()) -> tuple[dict[str, Tensor], float]:
        """The sum of summands in float64 from the sum of their words, and the count of clipped.

        whole: the names of the tensors of integers.
        """
        total = {
            name: torch.from_numpy(_signed(value)).double()
            * (1.0 if name in whole else self._step(name))
            for name, value in words.items()
        }
        return total, float(total.pop(CLIPPED))

    def zeros(self, expected: Layout) -> Words:
        """Words of zeros with the layout of encoded summands, from that of summands."""
        forms = self.layout(expected)
        return {n: np.zeros(tuple(f.shape), TENSOR_WORDS[self._bits(n)]) for n, f in forms.items()}

    def overflows(self, words: Words, summands: int, whole: Collection[str] = ()) -> bool:
        """True for a sum that so many summands cannot have: a mask, or a false word, is in it."""
        for name, value in words.items():
            most = self.most_whole if name in whole else summands * self.levels
            signed = _signed(value)
            if not name.startswith("#") and bool(((signed > most) | (signed < -most)).any()):
                return True
        return False

    def _bits(self, name: str) -> int:
        return LONG if name.startswith("#") else self.bits

    def _step(self, name: str) -> float:
        """The step of a name's numbers in a summand; powers of two keep whole weights exact."""
        if not name.startswith("#"):
            return self.step * self.weight_bound
        if name in (WEIGHT, CLIPPED):
            return LARGEST_WEIGHT / self._most
        return LARGEST_NUMBER / self._most * self.weight_bound

    @property
    def _most(self) -> float:
        """The largest long word of one client; `clients` of them do not wrap around."""
        return 2.0 ** (LONG - 2 - (self.clients - 1).bit_length())

    def _refuse_large(self, name: str, steps: Tensor) -> None:
        """Raise UserError for weights or weighted numbers of which `clients` might wrap around."""
        if steps.numel() and float(steps.abs().max()) > self._most:
            raise UserError(
                f"this client's {name.removeprefix('#')}, times its weight, is above "
                f"{self._most * self._step(name):g}, the most that a secure sum takes; report "
                "smaller numbers."
            )

    def _whole_words(self, name: str, whole: Tensor) -> NDArray[np.unsignedinteger]:
        signed = whole.long().cpu().contiguous().numpy()
        unsigned: NDArray[np.unsignedinteger] = signed.view(np.uint64)  # of as many bits: a ring
        return unsigned.astype(TENSOR_WORDS[self._bits(name)])

    def _words(self, name: str, steps: Tensor) -> NDArray[np.unsignedinteger]:
        bits = self._bits(name)
        signed = steps.round().to(SIGNED[bits]).cpu().contiguous().numpy()
        unsigned: NDArray[np.unsignedinteger] = signed.view(TENSOR_WORDS[bits])
        return unsigned


def _refuse_coarse(squares: float, count: int) -> None:
    """Raise UserError for numbers of which the grid would leave little.

    If the other clients' numbers were rounded away, the sum would be one client's alone.

    squares: the sum of the squares of the numbers, in steps. count: of those that are not 0.
    """
    if count and squares < COARSE**2 * count:
        raise UserError(
            f"this client's numbers have {(squares / count) ** 0.5:.2g} steps of the grid on "
            f"average, and at least {COARSE:g} are due, since little of them would be in the sum; "
            "lower aggregator.secagg.clip, raise its bits, or give the clients more equal weights."
        )


def to_tensors(words: Words) -> dict[str, Tensor]:
    """Words as tensors of signed integers, as they travel; both share their memory."""
    return {name: torch.from_numpy(_signed(value)) for name, value in words.items()}


def from_tensors(tensors: Mapping[str, Tensor]) -> Words:
    """Words from the tensors that `to_tensors` makes, in the order of their names."""
    return {
        name: tensors[name].numpy().view(TENSOR_WORDS[8 * tensors[name].element_size()])
        for name in sorted(tensors)
    }


def _signed(value: NDArray[np.unsignedinteger]) -> NDArray[np.signedinteger]:
    signed: NDArray[np.signedinteger] = value.view(f"i{value.itemsize}")
    return signed
