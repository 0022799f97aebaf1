"""PowerSGD (Vogels et al. 2019, 1905.13727): matrices as products with a basis that all share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.interfaces.declarations import Stage
from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Bounded, Layout, Tensors
from hanse.tensors.serialization import MessageError

RIGHT, LEFT = "right/", "left/"  # prefixes of the bases in the server's state
SENT = ".powersgd"  # behind the name of a matrix: its product with the basis
FILL = 1e-9  # of the largest entry: noise that completes a basis where the mean lacks rank
Form = TypeVar("Form", Tensor, Tensor | Bounded)


@dataclass(frozen=True)
class PowerSGD(Transform):
    """M ≈ P·Qᵀ of rank r; clients send P or Q in turn, on the basis that the server broadcasts.

    A right basis Q (n, r) has orthonormal columns. Clients send P = M·Q (m, r), which decodes to
    P·Qᵀ. The server makes the columns of the mean P orthonormal; they are the left basis of the
    next round, in which clients send Mᵀ·P (n, r). Each round is thus half a power iteration that
    starts where the last round ended, and each half is linear. Requests carry the bases.

    This is a reconstruction: in the paper, clients exchange P and then Q in every step, both of the
    same M. Here an update is projected on the basis of the round before, and the rest of it is
    lost unless `error_feedback` is on, which adds it to later updates.

    An entry of a product may be as large as the norm of a row or column of M; secure aggregation
    must not clip it.

    A tensor that has no two sides above r travels as it is. The updates of the first round have
    bases if those of all rounds and clients are alike; otherwise the server's model has, and a
    matrix of another name or shape travels as it is, unless no matrix of an update has a basis.
    """

    linear: ClassVar[bool] = True
    stage: ClassVar[Stage | None] = "reduce"
    rank: PositiveInt = 2  # r

    def init(self, expected: Layout) -> Tensors:
        """Random right bases, the same in all runs."""
        return {
            RIGHT + name: _orthonormal(torch.zeros(form.shape[1], self.rank), RoundContext(0), name)
            for name, form in _matrices(expected)
            if min(form.shape) > self.rank
        }

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """The product with its basis for each matrix that has one, and the other tensors.

        Raises UserError if no matrix has the name of one with a basis.
        """
        large = [name for name, form in _matrices(expected) if min(form.shape) > self.rank]
        if large and not any(side + name in state for name in large for side in (RIGHT, LEFT)):
            raise UserError(
                "powersgd has a basis for each matrix of the server's model, and the algorithm "
                f"sends others, such as {large[0]}, which would travel as they are; leave powersgd "
                "out of compression."
            )
        return _products(expected, state)

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """The same of the update."""
        return replace(update, tensors=_products(update.tensors, state))

    def decoded_bytes(self, update: Update, state: Tensors) -> int:
        """The bytes of the matrices whose products came, and of the other tensors."""
        sizes = {name: tensor.numel() * tensor.itemsize for name, tensor in update.tensors.items()}
        for name, basis in _bases(update.tensors, state).items():
            sizes[name] = sizes[name] // self.rank * len(basis.vectors)
        return sum(sizes.values())

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The matrices; raises MessageError for products that no basis here gives."""
        bases = _bases(update.tensors, state)
        tensors = {
            name.removesuffix(SENT): bases[name].matrix(t) if name in bases else t
            for name, t in update.tensors.items()
        }
        return replace(update, tensors=tensors)

    def finish(
        self, aggregate: Aggregate, state: Tensors, context: RoundContext
    ) -> tuple[Aggregate, Tensors]:
        """Each matrix of the aggregate gives the basis of the other side; other bases stay."""
        following = dict(state)
        for name, mean in aggregate.tensors.items():
            if basis := _Basis.of(name, mean, state):
                del following[basis.side + name]
                product = basis.product(mean.double())
                other = LEFT if basis.side == RIGHT else RIGHT
                following[other + name] = _orthonormal(product, context, name)
        return aggregate, following


@dataclass(frozen=True)
class _Basis:
    """The basis of one side of a matrix: RIGHT (n, r), or LEFT (m, r)."""

    side: str
    vectors: Tensor

    @staticmethod
    def of(name: str, form: Tensor | Bounded, state: Tensors) -> "_Basis | None":
        """The basis for a tensor; None if no basis has the length of its side."""
        if isinstance(form, Tensor) and form.dim() == 2:
            for side, length in ((RIGHT, form.shape[1]), (LEFT, form.shape[0])):
                if side + name in state and len(state[side + name]) == length:
                    return _Basis(side, state[side + name])
        return None

    def product(self, matrix: Tensor) -> Tensor:
        """M·Q (m, r), or Mᵀ·P (n, r), in the dtype of the matrix."""
        return _multiplied(matrix.T if self.side == LEFT else matrix, self.vectors)

    def matrix(self, product: Tensor) -> Tensor:
        """The matrix (m, n) in the span of the basis with this product."""
        matrix = _multiplied(product, self.vectors.T)
        return matrix.T.contiguous() if self.side == LEFT else matrix


def _matrices(expected: Layout) -> Iterator[tuple[str, Tensor]]:
    """The names and forms of the matrices of floats."""
    for name, form in expected.items():
        if isinstance(form, Tensor) and form.dim() == 2 and form.is_floating_point():
            yield name, form


def _multiplied(left: Tensor, right: Tensor) -> Tensor:
    """The product in the dtype and on the device of the left matrix; layouts have no values."""
    wide = torch.promote_types(left.dtype, torch.float32)
    return (left.to(wide) @ right.to(left.device, wide)).to(left.dtype)


def _products(tensors: Mapping[str, Form], state: Tensors) -> dict[str, Form | Tensor]:
    """The matrices with a basis as their products, under names of their own."""
    products: dict[str, Form | Tensor] = {}
    for name, tensor in tensors.items():
        basis = _Basis.of(name, tensor, state)
        if basis is not None and isinstance(tensor, Tensor):
            products[name + SENT] = basis.product(tensor)
        else:
            products[name] = tensor
    return products


def _bases(tensors: Tensors, state: Tensors) -> dict[str, _Basis]:
    """The bases of the products in a message; raises MessageError for one that has none."""
    bases = {}
    for name, tensor in tensors.items():
        if not name.endswith(SENT):
            continue
        matrix = name.removesuffix(SENT)
        side = next((side for side in (RIGHT, LEFT) if side + matrix in state), None)
        if side is None or tensor.dim() != 2 or tensor.shape[1] != state[side + matrix].shape[1]:
            raise MessageError(f"{name} came as {tuple(tensor.shape)}, which fits no basis here")
        bases[name] = _Basis(side, state[side + matrix])
    return bases


def _orthonormal(columns: Tensor, context: RoundContext, name: str) -> Tensor:
    """Orthonormal columns (s, r) in float32, whose span contains that of the columns given.

    Where these lack rank, random columns complete them; zeros would never leave the basis.
    """
    draw = context.generator(f"powersgd/{name}")
    noise = torch.randn(columns.shape, generator=draw, dtype=torch.float64)
    scale = float(columns.abs().max()) or 1.0
    vectors: Tensor = torch.linalg.qr(columns.double() + FILL * scale * noise).Q
    return vectors.float()
