"""Random 2-layer models with a small tokenizer, saved as folders that transformers can load."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from samples import BAD, GOOD, PLAIN

# By default the tokenizer knows the words of tests' reviews.
WORDS = [" ".join((*GOOD, *BAD, *PLAIN, "positive negative Review: Sentiment:"))] * 5
CHAT = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|start|>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|end|>",
        chat_template=CHAT,
        clean_up_tokenization_spaces=False,
    )


def _save(
    folder: Path,
    model: type[PreTrainedModel],
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Save a random model, always the same one, with its tokenizer."""
    torch.manual_seed(0)
    model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_llama(folder: Path, texts: Sequence[str] = WORDS, layers: int = 2) -> None:
    """Save a random Llama: 2 layers unless other are asked for, hidden size 32."""
    tokenizer = _tokenizer(texts)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,  # wide enough for an adapter to move the answers
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    _save(folder, LlamaForCausalLM, config, tokenizer)


def save_gpt2(folder: Path) -> None:
    """Save a random GPT-2 (its matrices are Conv1D): 2 layers, hidden size 32."""
    tokenizer = _tokenizer(WORDS)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=256,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
    )
    _save(folder, GPT2LMHeadModel, config, tokenizer)


def save_bert(folder: Path, texts: Sequence[str] = WORDS) -> None:
    """Save a random BERT without a head: 2 layers, hidden size 32."""
    tokenizer = _tokenizer(texts)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    _save(folder, BertModel, config, tokenizer)


def _closing_tokenizer() -> PreTrainedTokenizerFast:
    """The same tokenizer, with the end of a text behind every text, as T5 and BART have it."""
    tokenizer = _tokenizer(WORDS)
    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    return tokenizer


def save_t5(folder: Path) -> None:
    """Save a random T5: 2 layers on each side, hidden size 32."""
    tokenizer = _closing_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        initializer_factor=1.0,
        decoder_start_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    _save(folder, T5ForConditionalGeneration, config, tokenizer)


def save_bart(folder: Path) -> None:
    """Save a random BART: 2 layers on each side, hidden size 32."""
    tokenizer = _closing_tokenizer()
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        max_position_embeddings=256,
        init_std=0.2,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    _save(folder, BartForConditionalGeneration, config, tokenizer)
