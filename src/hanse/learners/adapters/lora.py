"""LoRA (Hu et al. 2021, 2106.09685): a low-rank update of frozen matrices."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, PlainSerializer, PositiveFloat

from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import Adapter, Layers, Targets
from hanse.registry import ServerText, plain_names

with lazy_imports():
    import peft
    from peft.tuners.lora import layer as lora_layer
    from peft.utils import other
    from torch import nn
    from transformers import pytorch_utils

    from hanse.learners.injection import target_modules as modules


Rank = Annotated[int, Field(ge=1, le=65_536)]  # the limit is above the width of any matrix
Ranks = Annotated[
    dict[Annotated[str, Field(pattern=r"^[\w.-]{1,200}$")], Rank],
    Field(max_length=1_000),
    ServerText(lambda ranks: plain_names([*ranks]), "ranks by plain names of matrices"),
]


def _whole(value: float) -> float:
    """The number without .0, as people write α and as PEFT has it."""
    return int(value) if value < 2**53 and value % 1 == 0 else value


Alpha = Annotated[PositiveFloat, PlainSerializer(_whole, return_type=Any)]
PATTERNS = "rank_pattern", "alpha_pattern"  # PEFT's settings of single matrices


@dataclass(frozen=True)
class Lora(Adapter):
    """W + s·B·A with W frozen and B zero at the start; s = α/r.

    target_modules: names of modules, or a regular expression; none: PEFT's choice for the
        architecture.
    target_parameters: names of parameters, such as those that hold all experts of a layer;
        all-linear has these, too.
    layers_to_transform: the layers that are adapted, counted from 0; none: all. The layers below
        them are computed once.
    rank_pattern: other ranks than r, by the names of matrices or the ends of these, such as q_proj
        or layers.3.mlp.up_proj. The longest that fits decides. α follows the rank: s is the same
        for all matrices.
    use_rslora: s = α/√r (Kalajdzievski 2023, 2312.03732): a higher rank learns equally fast.
    use_dora: the lengths of W's columns are trained separately (Liu et al. 2024, 2402.09353).
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str] = "LORA"
    required: ClassVar[tuple[str, ...]] = ("r", "lora_alpha", "lora_dropout")
    client_settings: ClassVar[tuple[str, ...]] = ("lora_dropout",)
    rank_settings: ClassVar[tuple[str, ...]] = ("r", "lora_alpha")
    layout_settings: ClassVar[tuple[str, ...]] = (
        *("target_modules", "layers_to_transform", "rank_pattern"),
    )

    r: Rank = 8
    lora_alpha: Alpha = 16
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Targets = None
    target_parameters: tuple[str, ...] | None = None
    layers_to_transform: Layers | None = None
    rank_pattern: Ranks = field(default_factory=dict, hash=False)
    use_rslora: bool = False
    use_dora: bool = False

    @property
    def scaling(self) -> float:
        """The factor s of B·A."""
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)

    @property
    def row_gradients(self) -> bool:
        return not self.use_dora and not self.target_parameters

    @property
    def resizable(self) -> bool:
        return not self.rank_pattern and not self.target_parameters

    def resized(self, model: Any, depth: int, width: int) -> "Lora":
        """As the base class says; α is such that s stays the same."""
        rank, layers = min(width, self.r), modules.top(model, self.layers_to_transform, depth)
        alpha = self.lora_alpha * (rank / self.r) ** (0.5 if self.use_rslora else 1.0)
        return replace(self, r=rank, lora_alpha=alpha, layers_to_transform=layers)

    def config(self, model: Any) -> "peft.LoraConfig":
        self._refuse_wide(model)
        values: dict[str, Any] = {
            **asdict(self),
            "target_modules": modules.plain(self.target_modules),
        }
        if self.layers_to_transform is not None:
            values["layers_to_transform"] = list(self.layers_to_transform)
            values["target_modules"] = modules.in_layers(
                model, self.target_modules, self.layers_to_transform
            )
        parameters = self.target_parameters
        values["target_parameters"] = None if parameters is None else list(parameters)
        values |= self._patterns()
        return peft.LoraConfig(**values)

    def refusal(self, model: Any, error: Exception) -> str:
        where = "this model" if self.layers_to_transform is None else "the model's layers"
        return modules.unmatched(model, self.target_modules, error, where, "LoRA")

    def _refuse_wide(self, model: Any) -> None:
        """Raise UserError for a rank above the size of every matrix, before factors are made."""
        matrices = (nn.Linear, pytorch_utils.Conv1D)
        sides = [
            min(m.weight.shape) for _, m in modules.base_modules(model) if isinstance(m, matrices)
        ]
        ranks = {"r": self.r, **{f"rank_pattern.{n}": r for n, r in self.rank_pattern.items()}}
        setting = max(ranks, key=ranks.__getitem__)
        if sides and ranks[setting] > max(sides):
            raise UserError(
                f"adapter.lora.{setting} is {ranks[setting]}, but the model's matrices have at "
                f"most {max(sides)} rows or columns, so a higher rank adds nothing; set it to "
                f"{max(sides)} or less."
            )

    def check(self, model: "peft.PeftModel", name: str) -> None:
        """Raise UserError for a useless rank, or for experts in some of the layers alone."""
        layers: dict[str, Any] = {
            path: layer
            for path, layer in model.named_modules()
            if isinstance(layer, lora_layer.LoraLayer) and name in layer.lora_A
        }
        fused = any(isinstance(layer, lora_layer.ParamWrapper) for layer in layers.values())
        if fused and self.layers_to_transform is not None:
            raise UserError(
                "adapter.lora.layers_to_transform does not go with fused experts, which PEFT "
                "adapts in all layers; leave it out, or name target_modules without experts."
            )
        sides = {
            path: min(layer.lora_A[name].in_features, layer.lora_B[name].out_features)
            for path, layer in layers.items()
        }
        self._check_ranks(sides)
        most = max(sides.values(), default=self.r)
        if self.r > most:
            raise UserError(
                f"adapter.lora.r is {self.r}, but the adapted matrices have at most {most} rows "
                f"or columns, so a higher rank adds nothing; set it to {most} or less."
            )

    def _check_ranks(self, sides: Mapping[str, int]) -> None:
        """Raise UserError for a rank of no adapted matrix, or above its size.

        sides: the smaller side of each adapted matrix, by its name.
        """
        patterns = [*self._patterns()["rank_pattern"]]
        keys = {path: other.get_pattern_key(patterns, path) for path in sides}
        for pattern, rank in self.rank_pattern.items():
            place = f"adapter.lora.rank_pattern.{pattern}"
            most = max((sides[path] for path, key in keys.items() if key == pattern), default=0)
            if not most:
                names = sorted({path.rpartition(".")[2] for path in sides})
                raise UserError(
                    f"{place} gives a rank to no adapted matrix; it needs the name of one, or the "
                    f"end of a name, such as {', '.join(names)}."
                )
            if rank > most:
                raise UserError(
                    f"{place} is {rank}, but such matrices have at most {most} rows or columns, so "
                    f"a higher rank adds nothing; set it to {most} or less."
                )

    def _patterns(self) -> dict[str, dict[str, float]]:
        """PEFT's ranks and α of single matrices, with s = α/r as in the others."""
        root = 0.5 if self.use_rslora else 1.0
        # The first that fits decides for PEFT.
        ranks = dict(sorted(self.rank_pattern.items(), key=lambda item: -len(item[0])))
        alphas = {name: self.lora_alpha * (rank / self.r) ** root for name, rank in ranks.items()}
        doubled = _doubled(self.r, self.lora_alpha, self.target_parameters or ())
        return {
            key: {**doubled.get(key, {}), **pattern}
            for key, pattern in zip(PATTERNS, (ranks, alphas), strict=True)
        }

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Adapter:
        layers = written.get("layers_to_transform")
        if isinstance(layers, int):
            layers = [layers]
        names = written.get("target_parameters")
        parameters = tuple(sorted(names)) if names else None
        values = {**written, "layers_to_transform": layers or None, "target_parameters": parameters}
        patterns = {key: values.pop(key, None) or {} for key in PATTERNS}
        usual = _doubled(written["r"], written["lora_alpha"], parameters) if parameters else {}
        ranks = patterns["rank_pattern"]
        if isinstance(ranks, dict) and usual:
            ranks = {name: r for name, r in ranks.items() if name not in usual["rank_pattern"]}
        adapter = super().read({**values, "rank_pattern": ranks})
        assert isinstance(adapter, Lora)
        for key, pattern in adapter._patterns().items():
            if pattern != patterns[key]:
                raise ValueError(f"has {key}: {patterns[key]!r}")
        return adapter


def _doubled(r: int, alpha: float, parameters: Sequence[str]) -> dict[str, dict[str, float]]:
    """Doubled ranks and α of parameters that hold two matrices: each matrix gets rank r.

    PEFT does the same for such parameters that it finds by itself.
    """
    both = [rf".*\.{re.escape(name)}" for name in parameters if name.endswith("gate_up_proj")]
    if not both:
        return {}
    return dict(
        zip(PATTERNS, (dict.fromkeys(both, 2 * r), dict.fromkeys(both, 2 * alpha)), strict=True)
    )
