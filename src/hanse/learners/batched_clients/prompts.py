"""Virtual tokens of all clients of a batch, each client's before its own rows.

The rows of a batch belong to the clients in equal shares, in order, as in batched_layers.py.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import relu

from hanse.learners.batched_clients.batched_layers import (
    BIAS,
    WEIGHT,
    BatchedLayer,
    ClientTensors,
    Drop,
    Handle,
)
from hanse.learners.injection.attached_adapter import EMBEDDING, ENCODER, PROMPT
from hanse.learners.models.layers import replaced

ENCODED = (  # the tensors of P-tuning with an MLP
    EMBEDDING,
    *(f"{ENCODER}mlp_head.{at}{what}" for at in (0, 2, 4) for what in (WEIGHT, BIAS)),
)


class BatchedPrompt(BatchedLayer):
    """Prompt tuning: vectors before the text. base: PEFT's model, which passes its inputs on."""

    def attach(self, own: ClientTensors, scaling: Tensor, drop: Drop | None, layer: int) -> Handle:
        vectors = self.vectors(own)  # (K, vectors, width)

        def before(_: Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
            each = vectors.repeat_interleave(len(named["input_ids"]) // len(vectors), dim=0)
            return inputs, {**named, **self.inputs(each, named)}

        handle: Handle = self.base.register_forward_pre_hook(before, with_kwargs=True)
        return handle

    def vectors(self, own: ClientTensors) -> Tensor:
        """(K, vectors, width): the vectors of all clients."""
        return own[PROMPT]

    def inputs(self, each: Tensor, named: dict[str, Any]) -> dict[str, Any]:
        """The base model's inputs with the vectors. each: (R, vectors, width), of every row."""
        words = self.base.word_embeddings(named["input_ids"])
        changed = {"input_ids": None, "inputs_embeds": torch.cat([each.to(words.dtype), words], 1)}
        if (mask := named.get("attention_mask")) is not None:
            changed["attention_mask"] = torch.cat([mask.new_ones(each.shape[:2]), mask], 1)
        return changed


class BatchedEncodedPrompt(BatchedPrompt):
    """P-tuning: each client's MLP computes the vectors from its embeddings."""

    def vectors(self, own: ClientTensors) -> Tensor:
        x, *layers = (own[suffix] for suffix in ENCODED)
        for at in range(0, len(layers), 2):
            weight, bias = layers[at : at + 2]
            x = torch.baddbmm(bias[:, None], relu(x) if at else x, weight.transpose(1, 2))
        return x


class BatchedPrefix(BatchedPrompt):
    """Prefix tuning of a language model: keys and values of virtual tokens in every layer."""

    def inputs(self, each: Tensor, named: dict[str, Any]) -> dict[str, Any]:
        encoder = self.base.prompt_encoder[self.base.active_adapter]
        longest = each.shape[1] + named["input_ids"].shape[1]
        with replaced([encoder], lambda _: each):  # PEFT builds the cache of each architecture
            return {"past_key_values": self.base.get_prompt(len(each), max_cache_len=longest)}
