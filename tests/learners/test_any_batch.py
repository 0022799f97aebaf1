"""Answers and scores do not depend on the rows beside them, by adapter and by architecture."""

import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from hanse.errors import UserError
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.p_tuning import PTuning
from hanse.learners.adapters.peft import Peft, methods
from hanse.learners.adapters.prefix_tuning import PrefixTuning
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.backbone import Backbone
from hanse.learners.generation import Decoding, generate
from hanse.learners.injection.adapter import Adapter
from hanse.learners.load import load
from hanse.learners.models.precision import ComputeMode
from hanse.learners.models.settings import BaseModelSettings

COUNT = 4  # tokens of an answer
TIED = 1e-4  # likelier by less than this, a token may be chosen or not, as rounding goes
VOCABULARY = 300
GROUPED = {"num_key_value_heads": 2}
WINDOWED = {**GROUPED, "sliding_window": 4}
CAUSAL: dict[str, dict[str, Any]] = {  # by how they know places, and whether they have windows
    "llama": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "mistral": WINDOWED,
    "gemma2": {**WINDOWED, "head_dim": 8},
    "gemma3_text": {**WINDOWED, "head_dim": 8},
    "gpt2": {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "window_size": 4}
    | {"attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "falcon": {},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
}
VIRTUAL: dict[str, Adapter] = {
    "prompt_tuning": PromptTuning(3),
    "p_tuning": PTuning(3),
    "prefix_tuning": PrefixTuning(3),
    "cartridge": Peft("cartridge", {"num_virtual_tokens": 3}),
}
ADAPTERS: dict[str, Adapter] = {"lora": Lora(r=2, target_modules="all-linear"), **VIRTUAL}


def _prompts() -> list[list[int]]:
    """40 prompts of 1 to 20 tokens."""
    draw = random.Random(1)
    return [[draw.randrange(2, VOCABULARY) for _ in range(draw.randint(1, 20))] for _ in range(40)]


def _causal(kind: str) -> Backbone:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
    sizes |= {"initializer_range": 0.2, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, **{**sizes, **CAUSAL[kind]})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config = GenerationConfig(eos_token_id=[1], pad_token_id=0)
    tokenizer = SimpleNamespace(
        bos_token_id=None, decode=lambda ids, **_: " ".join(map(str, ids)), eos_token_id=1
    )
    return Backbone(kind, model, tokenizer, torch.device("cpu"), ComputeMode(bf16=False))


def _adapted(backbone: Backbone, settings: Adapter, moved: float = 0.2) -> str:
    """An adapter that is far from where it begins."""
    name = backbone.attach(settings, 0)
    draw = torch.Generator().manual_seed(5)
    for parameter in backbone.parameters(name).values():
        parameter.data.add_(torch.randn(parameter.shape, generator=draw) * moved)
    return name


def _plain(backbone: Backbone, adapter: str, prompt: Sequence[int]) -> list[int]:
    """PEFT's model, one row, no cache and no padding; up to a tie or the end of the turn."""
    said: list[int] = []
    model = backbone.activate(adapter)
    read = torch.tensor([list(prompt)])
    while len(said) < COUNT:
        given = {"input_ids": torch.tensor([[*prompt, *said]])}
        if backbone.head.splits:
            begin = [backbone.model.config.decoder_start_token_id, *said]
            given = {"input_ids": read, "attention_mask": torch.ones_like(read)}
            given["decoder_input_ids"] = torch.tensor([begin])
        with torch.no_grad():
            (best, second), (token, _) = model(**given).logits[0, -1].topk(2)
        if best - second < TIED or int(token) == 1:
            break
        said.append(int(token))
    return said


def _check_answers(backbone: Backbone, adapter: str) -> None:
    """What plain PEFT says to the first dozen prompts: alone, three and forty at a time."""
    prompts = _prompts()
    plain = [_plain(backbone, adapter, prompt) for prompt in prompts[:12]]
    assert sum(map(len, plain)) > 0.7 * COUNT * len(plain), "ties would prove nothing"
    wanted = [backbone.text(tokens) for tokens in plain]
    assert len(set(wanted)) > 3, "prompts of no effect would prove nothing"
    for size in (1, 3, 40):
        found = []
        for start in range(0, 12, size):
            some = prompts[start : start + size]
            found += generate(backbone, adapter, some, Decoding(COUNT))
        assert [said[: len(own)] for said, own in zip(found, wanted, strict=False)] == wanted


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("kind", CAUSAL)
def test_an_answer_is_the_same_in_any_batch(kind: str, adapter: str) -> None:
    backbone = _causal(kind)
    try:
        name = _adapted(backbone, ADAPTERS[adapter])
    except UserError:
        assert kind in ("falcon", "mpt") and adapter in ("prefix_tuning", "cartridge")
        return
    _check_answers(backbone, name)


@pytest.mark.parametrize("adapter", ["lora", "prompt_tuning", "p_tuning", "prefix_tuning"])
@pytest.mark.parametrize("folder", ["tiny_t5", "tiny_bart"])
def test_so_it_is_where_an_encoder_reads(
    request: pytest.FixtureRequest, folder: str, adapter: str
) -> None:
    backbone = load(BaseModelSettings(str(request.getfixturevalue(folder)), bf16=False))
    settings = Lora(r=2) if adapter == "lora" else ADAPTERS[adapter]
    _check_answers(backbone, _adapted(backbone, settings, moved=1.0))


@pytest.mark.filterwarnings("ignore")  # PEFT's, of its own methods
@pytest.mark.parametrize("method", sorted({*methods()} - {*VIRTUAL}))
def test_so_it_is_with_every_method_of_peft(method: str) -> None:
    """Those that take the model as it is; others have to be told more."""
    for settings in ({}, {"target_modules": "all-linear"}):
        backbone = _causal("llama")
        try:
            name = _adapted(backbone, Peft(method, settings))
        except UserError:
            continue
        _check_answers(backbone, name)
        return


@pytest.mark.parametrize("adapter", ["ia3", *ADAPTERS])
@pytest.mark.parametrize("kind", CAUSAL)
def test_scores_are_the_same_in_any_batch(kind: str, adapter: str) -> None:
    """Padding stands on the right there, and nothing looks at it."""
    backbone, rows = _causal(kind), _prompts()[:12]
    settings = {"ia3": IA3(), **ADAPTERS}[adapter]  # of whose defaults PEFT knows few models
    try:
        name = _adapted(backbone, settings)
    except UserError:
        return
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[7] * (width - len(row))] for row in rows])
    at = torch.tensor([width * number + len(row) - 1 for number, row in enumerate(rows)])
    backbone.activate(name)
    with torch.no_grad():
        together = backbone.logits(ids, at, [*map(len, rows)])
        alone = [backbone.logits(torch.tensor([row]), torch.tensor([len(row) - 1])) for row in rows]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("adapter", VIRTUAL)
def test_virtual_tokens_take_places(tiny_gpt2: Path, adapter: str) -> None:
    """A prompt gives way to them and to the answer; an index beyond the last place would crash."""
    backbone = load(BaseModelSettings(str(tiny_gpt2), bf16=False))
    name = _adapted(backbone, VIRTUAL[adapter])
    draw = random.Random(4)
    prompt = [draw.randrange(2, VOCABULARY) for _ in range(260)]
    (found,) = generate(backbone, name, [prompt], Decoding(COUNT))
    kept = prompt[-(256 - 3 - COUNT) :]
    wanted = backbone.text(_plain(backbone, name, kept))
    assert wanted and found[: len(wanted)] == wanted
    with pytest.raises(UserError, match=r"max_new_tokens is 253, .* 256 tokens, 3 of them the"):
        generate(backbone, name, [prompt], Decoding(253))
