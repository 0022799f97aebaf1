"""Low-rank updates of weights, kept as factors: their sums and their best approximations.

The update of a weight (out, in) is up·down, with up (out, r) and down (r, in). The product is never
formed: all costs grow with r·(out + in), and with r³ for a decomposition.

A LoRA adapter of rank r means s·B·A with s = α/r. Clients with different ranks may have different
s. Only products that contain s can be compared, summed and shortened. Therefore the factors of a
client are multiplied by its s when they arrive (`scaled` by s), and divided by the s of the client
that they are sent to (`scaled` by 1/s).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.tensors.named import Tensors

A, B = ".lora_A.weight", ".lora_B.weight"
ROUNDING = 1e-7  # of the largest singular value; smaller ones are rounding errors
RESIDUAL = "residual/"  # prefix of the tensors that update the frozen base


@dataclass(frozen=True)
class Factors:
    """The update up·down: (out, r) times (r, in)."""

    up: Tensor
    down: Tensor

    @property
    def rank(self) -> int:
        """The number r of columns of up and rows of down; the rank of the product may be lower."""
        return len(self.down)

    def product(self) -> Tensor:
        """The product (out, in), for tests; training and aggregation never form it."""
        return self.up @ self.down

    def to(self, dtype: torch.dtype) -> "Factors":
        """The factors in another precision."""
        return Factors(self.up.to(dtype), self.down.to(dtype))


def layers(tensors: Tensors) -> dict[str, Factors]:
    """The factors B and A of an adapter by layer name, without the scaling s."""
    names = [name.removesuffix(A) for name in tensors if name.endswith(A)]
    return {name: Factors(tensors[name + B], tensors[name + A]) for name in names}


def tensors(layers: Mapping[str, Factors]) -> dict[str, Tensor]:
    """The inverse of `layers`: an adapter's tensors by PEFT's names."""
    named = {name + A: factors.down.contiguous() for name, factors in layers.items()}
    named |= {name + B: factors.up.contiguous() for name, factors in layers.items()}
    return {name: named[name] for name in sorted(named)}


def non_factor_tensors(tensors: Tensors) -> dict[str, Tensor]:
    """The trained tensors that are no factors, such as a head."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith((A, B))}


def refuse_other_than_lora(tensors: Tensors, algorithm: str, products: bool = True) -> None:
    """Raise UserError unless the adapter is LoRA in its plain form, with factors A and B alone.

    Other trained tensors, such as a head, are allowed: they are averaged.
    products: true if the algorithm uses B·A. Fused experts keep the factors of many matrices in one
        pair, so that their product means nothing.
    """
    factors = layers(tensors)
    others = [name for name in non_factor_tensors(tensors) if ".lora_" in name]
    if others or not factors:
        name = next(iter(others or tensors), "nothing")
        raise UserError(
            f"{algorithm} learns LoRA's factors A and B, but the adapter has {name}; choose the "
            "adapter lora in its plain form, or another algorithm such as fedavg."
        )
    fused = [name for name in factors if "experts" in name.split(".")]
    if products and fused:
        raise UserError(
            f"{algorithm} learns the products of LoRA's factors, and those of {fused[0]} are the "
            "factors of many experts; name target_modules without experts, or choose another "
            "algorithm such as fedavg."
        )


def refuse_unequal_ranks(tensors: Tensors, algorithm: str) -> None:
    """Raise UserError if an adapter's matrices have different ranks."""
    ranks = sorted({factors.rank for factors in layers(tensors).values()})
    if len(ranks) > 1:
        raise UserError(
            f"{algorithm} gives all matrices of a client one rank, but the adapter has ranks from "
            f"{ranks[0]} to {ranks[-1]}; leave adapter.lora.rank_pattern out, or choose another "
            "algorithm such as fedavg."
        )


def scaled(factors: Factors, by: float) -> Factors:
    """The product times a number: both factors times its root, and the sign into up."""
    root = abs(by) ** 0.5
    return Factors(factors.up * (root if by >= 0 else -root), factors.down * root)


def stacked(parts: Iterable[tuple[float, Factors]]) -> Factors:
    """The exact sum Σ wₖ·upₖ·downₖ, of rank Σ rₖ (Wang et al. 2024, 2409.05976).

    Each weight multiplies one factor only; in both it would count twice.
    """
    listed = list(parts)
    up = torch.cat([factors.up for _, factors in listed], dim=1)
    down = torch.cat([factors.down for _, factors in listed])
    rows = torch.split(down, [factors.rank for _, factors in listed])
    for part, (weight, _) in zip(rows, listed, strict=True):
        part.mul_(weight)
    return Factors(up, down)


def shortened(factors: Factors, rank: int | None = None) -> tuple[Factors, float]:
    """The nearest product of at most this rank, and its distance in the Frobenius norm.

    Both factors are brought into triangular form, and their small product is decomposed. Its
    singular values are those of the whole (out, in) matrix, and the distance is the norm of those
    left out (Eckart and Young 1936). The larger ones come first; each factor gets their roots.
    rank: None keeps all singular values that float32 can tell from zero, at least one.
    """
    left, right = _Triangular.of(factors.up), _Triangular.of(factors.down.T)
    core = left.form.double() @ right.form.double().T
    u, values, vh = torch.linalg.svd(core, full_matrices=False)
    if rank is None:
        rank = max(1, int((values > ROUNDING * values[0]).sum()))
    root = values[:rank].sqrt()
    up, down = left.turned(u[:, :rank] * root), right.turned(vh[:rank].T * root).T
    return Factors(up, down), float(values[rank:].square().sum().sqrt())


@dataclass(frozen=True)
class _Triangular:
    """The decomposition M = Q·R, with Q kept as Householder reflections and never formed."""

    reflections: Tensor  # (n, min(n, k)), below the diagonal
    sizes: Tensor  # (min(n, k),)
    form: Tensor  # R, (min(n, k), k)

    @classmethod
    def of(cls, matrix: Tensor) -> "_Triangular":
        """Decompose an (n, k) matrix."""
        packed, sizes = torch.geqrf(matrix)
        least = len(sizes)
        return cls(packed[:, :least], sizes, packed[:least].triu())

    def turned(self, columns: Tensor) -> Tensor:
        """The product of Q and (min(n, k), c) columns: (n, c)."""
        whole = self.reflections.new_zeros(len(self.reflections), columns.shape[1])
        whole[: len(columns)] = columns
        return torch.ormqr(self.reflections, self.sizes, whole)


def first(factors: Factors, rank: int) -> Factors:
    """The first columns and rows: the nearest product of that rank, if `shortened` made them."""
    return Factors(factors.up[:, :rank], factors.down[:rank])


def resized(factors: Factors, rank: int) -> Factors:
    """Factors of the same layer with another rank and undefined values, for a layout."""
    up, down = factors.up, factors.down
    return Factors(up.new_empty(len(up), rank), down.new_empty(rank, down.shape[1]))


def filled(factors: Factors | None, fresh: Factors) -> Factors:
    """The same product in factors of a higher rank, whose additional part can be trained.

    fresh: factors of the higher rank with B = 0. The additional rows of A come from them, and the
    additional columns of B are zero.
    """
    if factors is None:
        return fresh
    wide = padded(factors, fresh.rank)
    return Factors(wide.up, torch.cat([factors.down, fresh.down[factors.rank :]]))


def over(new: Factors, old: Factors) -> Factors:
    """The old factors with their first columns and rows replaced by the new factors."""
    up = torch.cat([new.up, old.up[:, new.rank :]], dim=1)
    return Factors(up, torch.cat([new.down, old.down[new.rank :]]))


def padded(factors: Factors, rank: int) -> Factors:
    """The same product in factors of a higher rank, padded with zeros."""
    lacking = rank - factors.rank
    up = torch.nn.functional.pad(factors.up, (0, lacking))
    return Factors(up, torch.nn.functional.pad(factors.down, (0, 0, 0, lacking)))


def norm(factors: Factors) -> float:
    """The norm ‖up·down‖_F = √⟨upᵀ·up, down·downᵀ⟩."""
    inner = (factors.up.T.double() @ factors.up.double()) * (
        factors.down.double() @ factors.down.double().T
    )
    return float(inner.sum().clamp(min=0).sqrt())


def inner_products(parts: Sequence[Factors]) -> Tensor:
    """The (n, n) inner products ⟨upᵢ·downᵢ, upⱼ·downⱼ⟩ = Σ upᵢᵀ·upⱼ ∘ downᵢ·downⱼᵀ, in float64."""
    up = torch.cat([factors.up.double() for factors in parts], dim=1)
    down = torch.cat([factors.down.double() for factors in parts])
    pairs = (up.T @ up) * (down @ down.T)
    ranks = torch.tensor([factors.rank for factors in parts])
    owner = torch.repeat_interleave(torch.arange(len(parts)), ranks)
    member = torch.nn.functional.one_hot(owner, len(parts)).double()  # (Σ ranks, n)
    return member.T @ pairs @ member


def mean(parts: Sequence[tuple[float, Mapping[str, Factors]]]) -> dict[str, Factors]:
    """The weighted mean of the clients' products, layer by layer, as stacked factors.

    Weights are divided by their sum; a client without a layer counts as zero there.
    """
    total = sum(weight for weight, _ in parts)
    names = dict.fromkeys(name for _, layers in parts for name in layers)
    return {
        name: stacked((weight / total, layers[name]) for weight, layers in parts if name in layers)
        for name in names
    }


def summed(residual: Tensors, change: Tensors) -> dict[str, Tensor]:
    """The sum of two updates of the base, of the lowest rank that is exact up to rounding."""
    before, added = layers(residual), layers(change)
    sums = {}
    for name, factors in added.items():
        parts = [(1.0, part.to(torch.float64)) for part in (before.get(name), factors) if part]
        sums[name] = shortened(stacked(parts))[0].to(torch.float32)
    return tensors(sums)
