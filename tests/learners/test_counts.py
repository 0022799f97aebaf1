"""How many parameters adapters have, to the last digit, on the shapes of published models.

The models are built from their published configurations without weights, on the meta device.
"""

from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    T5Config,
)

from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.exchange.round import RoundExchange
from hanse.federation.messages import Instruction, Reply, Update
from hanse.federation.method import Method
from hanse.federation.run import Run
from hanse.federation.schedule import Schedule
from hanse.federation.server_state import ServerState
from hanse.learners.adapters.bitfit import BitFit
from hanse.learners.adapters.full import Full
from hanse.learners.adapters.head import Head
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.lora_xs import LoraXS
from hanse.learners.adapters.p_tuning import PTuning
from hanse.learners.adapters.pfeiffer import Pfeiffer
from hanse.learners.adapters.prefix_tuning import PrefixTuning
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.inject import attach
from hanse.randomness import RoundContext

GPT2 = GPT2Config()
GPT2_LARGE = GPT2Config(n_embd=1280, n_layer=36, n_head=20)
LLAMA_7B = LlamaConfig()  # transformers' defaults are its shape
# ChatGLM-6B's queries, keys and values are one matrix, as GPT-NeoX's are; 28 layers of 4096.
CHATGLM = GPTNeoXConfig(hidden_size=4096, num_hidden_layers=28, num_attention_heads=32)


def _pythia(layers: int, width: int, heads: int, words: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        vocab_size=words,
    )


PYTHIA = {
    "2.8b": _pythia(32, 2560, 32, 50304),
    "6.9b": _pythia(32, 4096, 32, 50432),
    "12b": _pythia(36, 5120, 40, 50688),
}
QKV = Lora(r=8, target_modules=("query_key_value",))


def _model(config: PreTrainedConfig, auto: Any = AutoModelForCausalLM) -> Any:
    with torch.device("meta"):
        return auto.from_config(config)


# AdapterHub scales keys, values and what the inner layer gives; PEFT what enters the one behind it.
ADAPTERHUB = IA3(
    target_modules=r".*\.(self\.key|self\.value|layer\.\d+\.output\.dense)",
    feedforward_modules=r".*layer\.\d+\.output\.dense",
)


def _count(
    config: PreTrainedConfig,
    adapter: Adapter,
    auto: Any = AutoModelForCausalLM,
    task: str = "CAUSAL_LM",
    heads: Sequence[str] = (),
) -> int:
    return sum(p.numel() for p in _trained(config, adapter, auto, task, heads).values())


def _trained(
    config: PreTrainedConfig,
    adapter: Adapter,
    auto: Any = AutoModelForCausalLM,
    task: str = "CAUSAL_LM",
    heads: Sequence[str] = (),
) -> dict[str, torch.nn.Parameter]:
    """What is trained, without numbers."""
    model = _model(config, auto)
    with torch.device("meta"):
        _, attached = attach(model, adapter, 0, task, heads)
    return attached.parameters


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (GPT2, 124_439_808),
        (GPT2_LARGE, 774_030_080),
        (PYTHIA["2.8b"], 2_775_208_960),
        (PYTHIA["6.9b"], 6_857_302_016),
        (PYTHIA["12b"], 11_846_072_320),
        (LLAMA_7B, 6_738_415_616),
    ],
)
def test_the_shapes_are_those_of_the_models(config: PreTrainedConfig, count: int) -> None:
    assert sum(parameter.numel() for parameter in _model(config).parameters()) == count


@pytest.mark.parametrize(
    ("config", "adapter", "count"),
    [
        (GPT2, Houlsby(), 1_789_056),
        (GPT2_LARGE, Houlsby(), 14_843_520),
        (GPT2, Pfeiffer(), 894_528),
        (GPT2, Lora(r=8), 294_912),
        (GPT2, LoraXS(r=32), 49_152),
        (GPT2, IA3(), 64_512),
        (GPT2, Full(), 124_439_808),
        (GPT2, Full(freeze_embeddings=True), 85_056_000),
        (GPT2, BitFit(), 102_144),
        (GPT2, PromptTuning(20), 15_360),
        (GPT2, PromptTuning(21), 16_128),
        (GPT2, PrefixTuning(20), 368_640),
        (GPT2, PTuning(20), 20 * 768 + 3 * (768 * 768 + 768)),
        (PYTHIA["2.8b"], QKV, 2_621_440),
        (PYTHIA["6.9b"], QKV, 4_194_304),
        (PYTHIA["12b"], QKV, 5_898_240),
        (LLAMA_7B, Lora(r=8, target_modules=("q_proj", "v_proj")), 4_194_304),
        (LLAMA_7B, Lora(r=8, target_modules=("q_proj", "k_proj", "v_proj", "o_proj")), 8_388_608),
        (LLAMA_7B, Lora(r=8, target_modules="all-linear"), 19_988_480),
        (CHATGLM, QKV, 3_670_016),
        (CHATGLM, PrefixTuning(128), 29_360_128),
    ],
)
def test_adapters_of_causal_models(config: PreTrainedConfig, adapter: Adapter, count: int) -> None:
    assert _count(config, adapter) == count


@pytest.mark.parametrize(
    ("frozen", "count"),
    [
        (Full(), 66_968_852),
        (Full(freeze_embeddings=True), 43_133_204),
        (Full(freeze_layers=1), 36_045_332),
        (Full(freeze_layers=2), 28_957_460),
        (Full(freeze_layers=3), 21_869_588),
        (Full(freeze_layers=4), 14_781_716),
        (Full(freeze_layers=5), 7_693_844),
        (Full(freeze_layers=6), 605_972),
        (Head(), 605_972),
    ],
)
def test_frozen_layers_of_distilbert_with_20_labels(frozen: Adapter, count: int) -> None:
    config = DistilBertConfig(num_labels=20)
    auto, heads = AutoModelForSequenceClassification, ("pre_classifier", "classifier")
    assert _count(config, frozen, auto, "SEQ_CLS", heads) == count


def test_a_head_of_minilm_l6_with_two_labels() -> None:
    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    auto, heads = AutoModelForSequenceClassification, ("bert.pooler", "classifier")
    assert _count(config, Head(), auto, "SEQ_CLS", heads) == 148_610


@pytest.mark.parametrize(
    ("config", "adapter", "count"),
    [
        (BertConfig(), PromptTuning(21), 16_128),
        (T5Config(d_model=768), PromptTuning(20), 15_360),
        (BertConfig(), ADAPTERHUB, 55_296),
    ],
)
def test_adapters_of_encoders(config: PreTrainedConfig, adapter: Adapter, count: int) -> None:
    if isinstance(config, T5Config):
        assert _count(config, adapter, AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM") == count
    else:
        assert _count(config, adapter, AutoModel, "FEATURE_EXTRACTION") == count


@pytest.mark.parametrize(
    ("config", "adapter", "rounds", "ways", "published"),
    [
        (GPT2, Houlsby(), 10, 1, "71.6 MB"),
        (GPT2, Lora(r=8), 10, 1, "11.8 MB"),
        (BertConfig(), ADAPTERHUB, 10, 1, "2.2 MB"),
        (GPT2, Houlsby(), 2, 1, "14.3 MB"),
        (GPT2_LARGE, Houlsby(), 10, 2, "1.19 GB"),
    ],
)
def test_the_messages_of_published_models(
    config: PreTrainedConfig, adapter: Adapter, rounds: int, ways: int, published: str
) -> None:
    """Published are the parameters alone, in float32 and decimal megabytes, of ten aggregations.

    One way, but both ways where it is 1.19 GB; 14.3 MB are two aggregations, one each five epochs.
    In our messages a header with names and shapes stands before them, and eight bytes a number.
    """
    auto, task = AutoModelForCausalLM, "CAUSAL_LM"
    if isinstance(config, BertConfig):
        auto, task = AutoModel, "FEATURE_EXTRACTION"
    trained = _trained(config, adapter, auto, task)
    tensors = {name: torch.zeros(parameter.shape) for name, parameter in trained.items()}
    instructions = {"silo": Instruction(tensors)}
    run = Run(Schedule(1, 0), Method(FedAvg(), Mean()), *cast(Any, [None] * 4))
    state = ServerState({}, {}, {}, {})
    exchange = RoundExchange(run, state, RoundContext(0, 1), {}, instructions)
    reply = Reply("silo", "train", 1, Update(tensors, {"loss": 0.0}))
    payload = 4 * sum(parameter.numel() for parameter in trained.values())
    numbers = ("round", "last_counted_round"), ("round", "weight", "keeps_memory", "update/loss")
    for message, own in zip((exchange.encoded("train", "silo"), reply), numbers, strict=True):
        packed = message.pack()
        header = 8 + int.from_bytes(packed[:8], "little")
        assert len(packed) == header + 8 * len(own) + payload
    amount, unit = rounds * ways * payload, published[-2:]
    told = f"{amount / 1e9:.2f} GB" if unit == "GB" else f"{amount / 1e6:.1f} MB"
    assert told == published
