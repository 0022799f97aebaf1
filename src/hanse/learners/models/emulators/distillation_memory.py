"""The memory that a distillation will take, estimated before any weights are loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hanse.data.example import Example
from hanse.learners.models.emulators import sizes
from hanse.learners.models.emulators.compressor import Compressor
from hanse.learners.models.emulators.cut import Cut
from hanse.learners.models.emulators.shrink import empty
from hanse.learners.models.layers import layer_list

FLOAT32 = 4  # bytes
TRAINED = 4  # numbers for each of the middle: it, its gradient, Adam's two
LOGITS = 3  # numbers for each logit: it, its logarithm of softmax, its gradient
# Numbers that a layer keeps for each token until its gradient is computed, for each number of its
# width and of its feed-forward width: states around norms and attention, and gate, up and product.
WIDE, INNER = 10, 4


@dataclass(frozen=True)
class DistillationMemory:
    """Bytes of a distillation in float32.

    held: of the whole model, and of the emulator's middle with its gradient and optimizer.
    batch: of a batch of the longest examples: what layers keep, and logits.
    """

    held: int
    batch: int

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return self.held + self.batch


def estimate(
    config: Any, cut: Cut, compressor: Compressor, examples: Sequence[Example], batch_size: int
) -> DistillationMemory:
    """The memory of a distillation of a model of this configuration.

    A reconstruction: what layers keep is counted for dense layers, whose attention keeps no matrix
    of tokens by tokens (Korthikanti et al. 2022, 2205.05198, §4.1, count alike for half precision),
    and a compressed middle as if its matrices were whole.
    """
    model, text = empty(config), config.get_text_config()
    kept = [cut.bottom + position for position in compressor.kept(cut.middle)]
    layers = layer_list(model)[1]
    middle = sizes.parameters(layers[number] for number in kept)
    tokens = batch_size * max((len(example.ids) for example in examples), default=0)
    width = text.hidden_size
    inner = getattr(text, "intermediate_size", None) or getattr(text, "ffn_dim", 4 * width)
    in_layers = (len(kept) + cut.top) * (WIDE * width + INNER * inner)
    return DistillationMemory(
        FLOAT32 * (sizes.parameters([model]) + TRAINED * middle),
        FLOAT32 * tokens * (in_layers + LOGITS * text.vocab_size),
    )
