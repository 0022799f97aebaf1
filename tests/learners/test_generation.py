"""Generated text against a loop that does nothing clever."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from hanse.data.example import IGNORED, Example
from hanse.errors import UserError
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.generation import Decoding, generate
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext

LENGTHS = (3, 17, 8, 1, 11)


def _prompts() -> list[tuple[int, ...]]:
    """Random tokens of unequal length."""
    draw = torch.Generator().manual_seed(3)
    return [tuple(torch.randint(2, 300, (n,), generator=draw).tolist()) for n in LENGTHS]


def _examples() -> list[Example]:
    """The prompts, each with an answer that must not be looked at."""
    return [
        Example((*ids, 7, 8, 9), (IGNORED,) * len(ids) + (7, 8, 9), prompt=len(ids), answer="x")
        for ids in _prompts()
    ]


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def learner(request: pytest.FixtureRequest) -> AdaptedModel:
    return _learner(request.getfixturevalue(request.param))


def _learner(folder: Path) -> AdaptedModel:
    """A learner whose adapter is not zero, so that it counts."""
    backbone = load(BaseModelSettings(str(folder), bf16=False))
    adapter = backbone.attach(Lora(r=4), seed=0)
    draw = torch.Generator().manual_seed(5)
    for parameter in backbone.parameters(adapter).values():
        parameter.data.normal_(0, 0.3, generator=draw)
    return AdaptedModel(backbone, adapter, {}, TrainingSettings(), Sft(), RoundContext(0), 1, {})


def _naive(
    learner: AdaptedModel, prompt: Sequence[int], count: int, stops: Sequence[int]
) -> list[int]:
    """One prompt, no cache, no padding: all of it is read again for each token."""
    ids = list(prompt)
    model = learner.backbone.activate(learner.adapter)
    while len(ids) < len(prompt) + count:
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in stops:
            break
        ids.append(token)
    return ids[len(prompt) :]


def _said(learner: AdaptedModel, count: int, stops: Sequence[int]) -> list[str]:
    return [learner.text(_naive(learner, prompt, count, stops)) for prompt in _prompts()]


def test_a_batch_says_what_each_prompt_alone_says_and_what_a_plain_loop_says(
    learner: AdaptedModel,
) -> None:
    stops = [learner.backbone.tokenizer.eos_token_id]
    together = learner.generate(_examples(), 12)
    assert together == [learner.generate([example], 12)[0] for example in _examples()]
    assert together == _said(learner, 12, stops)
    assert len(set(together)) == len(LENGTHS), "prompts of no effect would prove nothing"


def test_it_is_the_adapter_that_speaks(learner: AdaptedModel) -> None:
    adapted = learner.generate(_examples(), 12)
    learner.load({name: torch.zeros_like(t) for name, t in learner.tensors().items()})
    base = learner.generate(_examples(), 12)
    assert base != adapted
    assert base == _said(learner, 12, [])


def test_an_answer_ends_where_the_turn_ends(learner: AdaptedModel) -> None:
    whole = _naive(learner, _prompts()[1], 12, [])
    stops = [whole[4], whole[7]]  # any of several ends
    learner.backbone.model.get_base_model().generation_config.eos_token_id = stops
    found = learner.generate(_examples(), 12)
    assert found == _said(learner, 12, stops)
    assert found[1] == learner.text(whole[: min(whole.index(stop) for stop in stops)])


def test_what_a_model_recommends_for_sampling_is_not_greedy(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "opinionated"
    shutil.copytree(tiny_llama, folder)
    advice = {"do_sample": True, "temperature": 0.6, "top_k": 20, "repetition_penalty": 5.0}
    advice |= {"eos_token_id": [1, 77], "min_new_tokens": 5}
    (folder / "generation_config.json").write_text(json.dumps(advice))
    learner = _learner(folder)
    assert learner.generate(_examples(), 12) == _said(learner, 12, [1, 77])
    assert learner.backbone.model.generation_config.eos_token_id == [1, 77]


def test_a_prompt_gives_way_to_the_answer(learner: AdaptedModel) -> None:
    limit = learner.backbone.positions
    assert limit == 256
    draw = torch.Generator().manual_seed(4)
    prompt = tuple(torch.randint(2, 300, (250,), generator=draw).tolist())
    (found,) = generate(learner.backbone, learner.adapter, [prompt], Decoding(20))
    assert found == learner.text(_naive(learner, prompt[-236:], 20, [1]))
    learner.backbone.tokenizer.bos_token = "<|start|>"
    prompt = (learner.backbone.tokenizer.bos_token_id, *prompt[1:])
    (found,) = generate(learner.backbone, learner.adapter, [prompt], Decoding(20))
    kept = prompt[:1] + prompt[-235:]
    assert found == learner.text(_naive(learner, kept, 20, [1])), "the first token stays"
    with pytest.raises(UserError, match=r"max_new_tokens is 256, but .* reads at most 256"):
        generate(learner.backbone, learner.adapter, [prompt], Decoding(256))


def test_drawn_tokens_follow_their_seed(learner: AdaptedModel) -> None:
    def say(temperature: float, seed: int) -> str:
        decoding = Decoding(12, temperature, seed)
        return generate(learner.backbone, learner.adapter, _prompts()[:1], decoding)[0]

    state = torch.get_rng_state()
    assert say(1.0, 1) == say(1.0, 1) != say(1.0, 2)
    assert say(0.0, 1) == say(0.0, 2) == say(1e-4, 1)
    assert torch.equal(torch.get_rng_state(), state), "nothing else draws otherwise for it"


def test_an_answer_is_heard_while_it_is_said(learner: AdaptedModel) -> None:
    heard: list[str] = []
    (found,) = generate(
        learner.backbone, learner.adapter, _prompts()[:1], Decoding(40), heard.append
    )
    assert "".join(heard) == found
    assert all(heard)
