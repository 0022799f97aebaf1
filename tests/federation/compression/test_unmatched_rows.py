"""Predictions of a silo with a foreign tokenizer: codecs keep them, and no bound refuses them.

Labels without a match are one-hot; their numbers must not drown those of the other rows.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hanse import registry
from hanse.federation.algorithms.fedmkt import FedMKT
from hanse.federation.interfaces.token_alignment import Correspondence
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.journal.run_folder import read_ledger
from hanse.randomness import RoundContext
from hanse.tensors import top_k
from hanse.tensors.named import Tensors, layout
from hanse.tensors.top_k_transfer import transfer
from toy_learners import CLASSES, Toy, ToyLearner
from toys import federate, silos

FOLDER = "federation/compression"
CONTEXT = RoundContext(0, 1, "a", rounds=3)
ROWS, SIZE = 64, 50
CODECS = [n for n in registry.names(FOLDER) if "logits" in registry.find(FOLDER, n).payloads]
WORST = {"int8": 0.1, "fp16": 0.01, "bf16": 0.1, "identity": 0.0, "zstd": 0.0, "deflate": 0.0}


class Foreign(ToyLearner):
    """A toy whose tokens are never those of the server."""

    def correspondences(self, split: str, other: Tensors) -> tuple[Correspondence, Correspondence]:
        labels = other["labels"]
        none = torch.full((len(labels),), -1)
        return (Correspondence(none, torch.arange(CLASSES), labels, CLASSES),) * 2


class ForeignToy(Toy):
    def __call__(self, context: RoundContext, optimizer_state: dict[str, Tensor]) -> ToyLearner:
        return Foreign(self, context, optimizer_state)


@pytest.mark.parametrize("k", [2, CLASSES])
def test_a_silo_with_a_foreign_tokenizer_is_within_the_bound_of_norms(
    k: int, tmp_path: Path
) -> None:
    learners = silos(3)
    learners["c1"] = ForeignToy(**vars(learners["c1"]))
    run = federate(FedMKT(k=k), learners, tmp_path / "run", max_norm_ratio=50.0)
    assert [record.clients for record in run.records[1:]] == [("c0", "c1", "c2")] * 3
    assert not [row.error for row in read_ledger(tmp_path / "run") if row.error]


def predictions(matched: bool) -> tuple[dict[str, Tensor], Tensor]:
    """The wire's form of rows of which each second one has no match, or none; their labels."""
    draw = torch.Generator().manual_seed(0)
    logits = (2 * torch.randn(ROWS, SIZE, generator=draw)).log_softmax(dim=1)
    rows, labels = torch.arange(ROWS), torch.arange(ROWS) % SIZE
    rows = rows if matched else rows.masked_fill(rows % 2 == 1, -1)
    return transfer(top_k.top_k(logits, 8), rows, torch.arange(SIZE), labels, SIZE), labels


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_of_logits_keeps_rows_without_and_with_a_match(name: str) -> None:
    parts, labels = predictions(matched=False)
    exact = top_k.dense(predictions(matched=True)[0], SIZE).exp()
    codec = registry.build(FOLDER, name)
    assert isinstance(codec, Transform)
    state = codec.init(layout(parts))
    message = codec.encode(Update(parts), {}, state, CONTEXT)
    result = codec.decode(message, codec.broadcast(state), CONTEXT).tensors
    top_k.check(result, SIZE)
    found = top_k.dense(result, SIZE).exp()
    assert float(found[1::2].gather(1, labels[1::2, None]).min()) > 0.99
    distance = (found - exact)[::2].abs().sum(dim=1).max() / 2
    assert float(distance) <= WORST.get(name, 1.0) + 1e-6
