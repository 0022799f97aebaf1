"""Layer drop (Xiao et al. 2023, 2302.04870): the middle keeps some layers at equal distances."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt

from hanse.errors import UserError
from hanse.learners.models.emulators.compressor import Compressor
from hanse.learners.models.emulators.index_rules import Rule, kept_positions


@dataclass(frozen=True)
class LayerDrop(Compressor):
    """A share of the middle's layers is left out; the others are kept as they are.

    drop: the share that is left out: round(n·(1 - drop)) of n layers are kept, at least one.
    keep: so many layers are kept, in place of `drop`.
    rule: round or int, as in `index_rules`.
    """

    replaces: ClassVar[bool] = False
    discloses: ClassVar[str] = "the model's own layers as they are"

    drop: Annotated[float, Field(ge=0, lt=1)] = 0.5
    keep: PositiveInt | None = None
    rule: Rule = "round"

    def kept(self, layers: int) -> list[int]:
        if self.keep is not None and self.keep > layers:
            raise UserError(
                f"layer_drop.keep is {self.keep}, but the middle has {layers} layers; lower it."
            )
        count = self.keep or max(1, round(layers * (1 - self.drop)))
        return kept_positions(layers, count, self.rule)
