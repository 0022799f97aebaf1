"""Shapes of published models, for random weights: time and memory do not depend on the values.

Those of the hub are its config.json files.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


def _llama(width: int, inner: int, layers: int, heads: int, keys: int, words: int) -> Any:
    return {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": words,
        "max_position_embeddings": 8192,
    }


def _t5(width: int, inner: int, layers: int, heads: int, of_head: int, words: int) -> Any:
    return {
        "model_type": "t5",
        "d_model": width,
        "d_ff": inner,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": heads,
        "d_kv": of_head,
        "vocab_size": words,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    }


SHAPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "llama-tiny": _llama(64, 128, 2, 4, 2, 512),
        "llama-135m": _llama(576, 1536, 30, 9, 3, 49152),  # HuggingFaceTB/SmolLM2-135M
        "llama-360m": _llama(960, 2560, 32, 15, 5, 49152),  # HuggingFaceTB/SmolLM2-360M
        "llama-1.1b": _llama(2048, 5632, 22, 32, 4, 32000),  # TinyLlama/TinyLlama-1.1B
        "t5-tiny": _t5(64, 128, 2, 4, 16, 512),
        "t5-small": _t5(512, 1024, 8, 6, 64, 32128),  # google/flan-t5-small
        "t5-base": _t5(768, 2048, 12, 12, 64, 32128),  # google/flan-t5-base
        "t5-large": _t5(1024, 2816, 24, 16, 64, 32128),  # google/flan-t5-large
    }
)
