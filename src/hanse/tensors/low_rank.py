"""Changes of low rank, kept as their factors: sums of them, and their best approximations.

A change of a weight (out, in) is up·down, with up (out, r) and down (r, in). That product is never
formed: all costs grow with r·(out + in), and with r³ for a decomposition.

A LoRA adapter of rank r means s·B·A with s = α/r. Where clients' ranks differ so may their s, and
what can be compared, summed and shortened is only the product with s in it. So s is put into the
factors when they come from a client (`scaled` by s), and taken out again, by the s of whoever is
sent them (`scaled` by 1/s).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.tensors.named import Tensors

A, B = ".lora_A.weight", ".lora_B.weight"
NOTHING = 1e-7  # of the largest singular value: what is smaller is rounding
RESIDUAL = "residual/"  # before the names of a change of the frozen base, among a model's tensors


@dataclass(frozen=True)
class Factors:
    """up·down: (out, r) times (r, in)."""

    up: Tensor
    down: Tensor

    @property
    def rank(self) -> int:
        """How many columns and rows there are; the product may be of less."""
        return len(self.down)

    def product(self) -> Tensor:
        """(out, in): for tests, and for layers so small that it does not matter."""
        return self.up @ self.down

    def to(self, dtype: torch.dtype) -> "Factors":
        """The same in another precision."""
        return Factors(self.up.to(dtype), self.down.to(dtype))


def layers(tensors: Tensors) -> dict[str, Factors]:
    """An adapter's factors B and A as they are, by the name of the layer."""
    names = [name.removesuffix(A) for name in tensors if name.endswith(A)]
    return {name: Factors(tensors[name + B], tensors[name + A]) for name in names}


def tensors(layers: Mapping[str, Factors]) -> dict[str, Tensor]:
    """The inverse of `layers`: an adapter's tensors by PEFT's names."""
    found = {name + A: factors.down.contiguous() for name, factors in layers.items()}
    found |= {name + B: factors.up.contiguous() for name, factors in layers.items()}
    return {name: found[name] for name in sorted(found)}


def non_factor_tensors(tensors: Tensors) -> dict[str, Tensor]:
    """What is trained beside the factors, such as a head."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith((A, B))}


def refuse_other_than_lora(tensors: Tensors, algorithm: str, products: bool = True) -> None:
    """Raise UserError unless there are factors A and B of LoRA, and no other parts of it.

    What else is trained, such as a head, is averaged as it is.
    products: whether the algorithm looks at B·A. Fused experts have the factors of many matrices in
        one pair, whose product means nothing.
    """
    own = layers(tensors)
    strange = [name for name in non_factor_tensors(tensors) if ".lora_" in name]
    if strange or not own:
        name = next(iter(strange or tensors), "nothing")
        raise UserError(
            f"{algorithm} learns LoRA's factors A and B, but the adapter has {name}; choose the "
            "adapter lora in its plain form, or another algorithm such as fedavg."
        )
    fused = [name for name in own if "experts" in name.split(".")]
    if products and fused:
        raise UserError(
            f"{algorithm} learns the products of LoRA's factors, and those of {fused[0]} are the "
            "factors of many experts; name target_modules without experts, or choose another "
            "algorithm such as fedavg."
        )


def scaled(factors: Factors, by: float) -> Factors:
    """The product times a number, which goes to both factors alike, its sign to one."""
    root = abs(by) ** 0.5
    return Factors(factors.up * (root if by >= 0 else -root), factors.down * root)


def stacked(parts: Iterable[tuple[float, Factors]]) -> Factors:
    """Σ wₖ·upₖ·downₖ, exactly, of rank Σ rₖ (Wang et al. 2024, 2409.05976).

    Each weight goes on one side only, or it would count twice.
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

    Both sides are brought into triangular form, whose small product is decomposed; so the singular
    values are those of the whole (out, in) matrix, and the distance is the norm of those left out
    (Eckart and Young 1936). The larger ones come first, and each goes to both factors alike.
    rank: none keeps all that float32 can tell from zero, at most min(r, out, in) and at least one.
    """
    left, right = _Triangular.of(factors.up), _Triangular.of(factors.down.T)
    core = left.form.double() @ right.form.double().T
    u, values, vh = torch.linalg.svd(core, full_matrices=False)
    if rank is None:
        rank = max(1, int((values > NOTHING * values[0]).sum()))
    root = values[:rank].sqrt()
    up, down = left.turned(u[:, :rank] * root), right.turned(vh[:rank].T * root).T
    return Factors(up, down), float(values[rank:].square().sum().sqrt())


@dataclass(frozen=True)
class _Triangular:
    """A matrix M = Q·R, with Q as the reflections that it is made of: Q itself is never formed."""

    reflections: Tensor  # (n, min(n, k)), below the diagonal
    sizes: Tensor  # (min(n, k),)
    form: Tensor  # R, (min(n, k), k)

    @classmethod
    def of(cls, matrix: Tensor) -> "_Triangular":
        """Of an (n, k) matrix."""
        packed, sizes = torch.geqrf(matrix)
        least = len(sizes)
        return cls(packed[:, :least], sizes, packed[:least].triu())

    def turned(self, columns: Tensor) -> Tensor:
        """Q times some (min(n, k), c) columns: (n, c)."""
        whole = self.reflections.new_zeros(len(self.reflections), columns.shape[1])
        whole[: len(columns)] = columns
        return torch.ormqr(self.reflections, self.sizes, whole)


def first(factors: Factors, rank: int) -> Factors:
    """The first columns and rows: of what `shortened` gives, the nearest product of that rank."""
    return Factors(factors.up[:, :rank], factors.down[:rank])


def resized(factors: Factors, rank: int) -> Factors:
    """Factors of the same layer with another rank, for what does not look at values."""
    up, down = factors.up, factors.down
    return Factors(up.new_empty(len(up), rank), down.new_empty(rank, down.shape[1]))


def filled(factors: Factors | None, fresh: Factors) -> Factors:
    """The same product in factors of the rank of fresh ones, whose B is zero, ready to learn.

    What is lacking is filled up with the fresh rows of A, and columns of B that are zero.
    """
    if factors is None:
        return fresh
    wide = padded(factors, fresh.rank)
    return Factors(wide.up, torch.cat([factors.down, fresh.down[factors.rank :]]))


def over(new: Factors, old: Factors) -> Factors:
    """Factors of the rank of the old ones, the first columns and rows being the new ones."""
    up = torch.cat([new.up, old.up[:, new.rank :]], dim=1)
    return Factors(up, torch.cat([new.down, old.down[new.rank :]]))


def padded(factors: Factors, rank: int) -> Factors:
    """The same product in factors of a higher rank, with zeros."""
    lacking = rank - factors.rank
    up = torch.nn.functional.pad(factors.up, (0, lacking))
    return Factors(up, torch.nn.functional.pad(factors.down, (0, 0, 0, lacking)))


def norm(factors: Factors) -> float:
    """‖up·down‖_F: √⟨upᵀ·up, down·downᵀ⟩."""
    inner = (factors.up.T.double() @ factors.up.double()) * (
        factors.down.double() @ factors.down.double().T
    )
    return float(inner.sum().clamp(min=0).sqrt())


def mean(parts: Sequence[tuple[float, Mapping[str, Factors]]]) -> dict[str, Factors]:
    """The weighted mean of the clients' products, by layer, stacked.

    The weights are made to sum to one; a client that lacks a layer adds nothing there.
    """
    total = sum(weight for weight, _ in parts)
    names = dict.fromkeys(name for _, own in parts for name in own)
    return {
        name: stacked((weight / total, own[name]) for weight, own in parts if name in own)
        for name in names
    }


def summed(residual: Tensors, change: Tensors) -> dict[str, Tensor]:
    """The sum of two changes of the base, exact but for rounding, in as few columns as it needs."""
    before, more = layers(residual), layers(change)
    found = {}
    for name, one in more.items():
        parts = [(1.0, part.to(torch.float64)) for part in (before.get(name), one) if part]
        found[name] = shortened(stacked(parts))[0].to(torch.float32)
    return tensors(found)
