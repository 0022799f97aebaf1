"""Every codec that reduces before every codec that quantizes, with tensors of all dtypes."""

from itertools import product

import pytest
import torch

from contract.test_codecs import FOLDER, build
from hanse import registry
from hanse.federation.messages import Update, validate_update
from hanse.federation.pipeline import Pipeline
from hanse.randomness import RoundContext
from hanse.tensors.named import fits, layout

CODECS = [(name, build(name).stage) for name in registry.names(FOLDER)]
REDUCE, QUANTIZE = (
    [name for name, stage in CODECS if stage == wanted] for wanted in ("reduce", "quantize")
)


def tensors() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    group = {
        str(dtype): torch.randn(16, 24, generator=draw).to(dtype)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    }
    return {**group, "count": torch.tensor([2**31 + 1]), "short": torch.tensor([3]).short()}


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("names", [*product(REDUCE, QUANTIZE)], ids="-".join)
def test_every_tensor_comes_back_in_its_dtype_and_shape(
    names: tuple[str, str], feedback: bool
) -> None:
    update, context = tensors(), RoundContext(0, 1, "a", rounds=3)
    codecs = tuple(map(build, names))
    weights = {index: codec.weights() for index, codec in enumerate(codecs)}
    pipeline = Pipeline("upload", codecs, error_feedback=feedback, weights=weights)
    states = pipeline.init(layout(update))
    encoded = pipeline.encode(Update(update), {}, states, context)
    validate_update(encoded, pipeline.layout(layout(update), states))
    result = dict(pipeline.decode(encoded, states, context, layout(update)).tensors)
    assert result.keys() == update.keys()
    for name, form in layout(update).items():
        assert fits(result[name], form), name
    for name in ("count", "short"):
        assert torch.equal(result[name], update[name])
