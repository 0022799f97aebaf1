"""The real model answers a greeting, and knows when to stop."""

import pytest

from hanse.data.tokenization.conversations import question
from hanse.learners.adapters.lora import Lora
from hanse.learners.generation import Decoding, generate
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("smollm2")]


@pytest.mark.parametrize("bf16", [False, "auto"])
def test_a_greeting_is_answered_in_a_sentence_that_ends(bf16: bool | str) -> None:
    backbone = load(BaseModelSettings("smollm2-135m", bf16=bf16))  # type: ignore[arg-type]
    adapter = backbone.attach(Lora(), seed=0)
    asked = ["Hello! How are you?", "What is the capital of France?"]
    prompts = [question([{"role": "user", "content": text}], backbone.tokenizer) for text in asked]
    said = generate(backbone, adapter, prompts, Decoding(96))
    for text in said:
        assert text.strip()
        assert len(backbone.tokenizer(text)["input_ids"]) < 90, "it stopped by itself"
        assert "<|im_" not in text
    assert "Paris" in said[1]
