"""A head with a dropout of its own: one function, whether clients train alone or together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Dropout
from transformers import (
    AutoTokenizer,
    CamembertConfig,
    CamembertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from clients import client, rows
from hanse.data.example import IGNORED, Example
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients import train
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.classify import Classify

LORA = Lora(r=2, target_modules=("query", "value"))
ENCODERS: dict[str, tuple[Any, Any]] = {
    "roberta": (RobertaConfig, RobertaModel),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel),
    "camembert": (CamembertConfig, CamembertModel),
    "electra": (ElectraConfig, ElectraModel),
}


@pytest.fixture(params=ENCODERS)
def backbone(request: pytest.FixtureRequest, tiny_bert: Path, tmp_path: Path) -> Backbone:
    """A tiny encoder in which half of everything would be dropped."""
    config, kind = ENCODERS[request.param]
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    torch.manual_seed(0)
    model = kind(
        config(
            vocab_size=max(len(tokenizer), 260),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            hidden_dropout_prob=0.5,
            classifier_dropout=0.5,
            pad_token_id=1,
        )
    )
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return load(BaseModelSettings(str(tmp_path), bf16=False, device="cpu"), classes=3)


def test_a_heads_own_dropout_rests_as_the_rest_of_the_models_does(backbone: Backbone) -> None:
    ids = [own.ids for own in rows(0, 12)]
    examples = [Example(i, (IGNORED,) * len(i), ((0,), (1,), (2,)), i[0] % 3) for i in ids]
    learner = client(backbone, "c0", examples, LORA, objective=Classify())
    heads = [n for n, m in backbone.model.named_modules() if isinstance(m, Dropout) and m.p]
    assert any("modules_to_save" in name for name in heads)
    batch = learner.batch(examples)
    with torch.no_grad(), backbone.with_dropout(learner.adapter):
        trained = learner.forward(batch)
    with torch.no_grad():
        torch.testing.assert_close(trained, learner.forward(batch), atol=0, rtol=0)

    start = learner.tensors()
    learner.fit()
    alone = learner.tensors()
    learner.load(start)
    member = learner.member()
    others = replace(learner, splits={"train": examples[3:]}).member()
    assert member.joins
    train.train([member, others])
    for name, tensor in alone.items():
        assert not torch.equal(tensor, start[name])
        torch.testing.assert_close(member.tensors[name], tensor, atol=5e-5, rtol=1e-5)
