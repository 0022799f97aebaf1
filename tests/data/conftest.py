"""Tokenizers small enough that every token of a test can be written by hand."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<s>"]


def _wrapped(backend: Tokenizer, **settings: str) -> PreTrainedTokenizerFast:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)


def _characters() -> Tokenizer:
    alphabet = SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate(alphabet)}
    return Tokenizer(models.BPE(vocab=vocabulary, merges=[]))


@pytest.fixture(scope="session")
def chatml() -> PreTrainedTokenizerFast:
    """Every byte is one token; ChatML; the end-of-text token ends a turn."""
    special = {"extra_special_tokens": ["<|im_start|>"], "chat_template": CHATML}
    return _wrapped(_characters(), eos_token="<|im_end|>", **special)


@pytest.fixture(scope="session")
def plain() -> PreTrainedTokenizerFast:
    """Every byte is one token; no chat template; puts <s> in front by itself."""
    backend = _characters()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    return _wrapped(backend, bos_token="<s>", eos_token="<|im_end|>")


@pytest.fixture(scope="session")
def words() -> PreTrainedTokenizerFast:
    """Byte-level BPE with merges: frequent words are one token with the space before them."""
    lines = ["the film was good and the plot was bad", "positive or negative: film good bad"] * 9
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(lines, trainer)
    return _wrapped(backend, eos_token="<|im_end|>")
