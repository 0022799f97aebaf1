"""What the clients of a cohort have before every text, each before its own rows.

A batch's rows belong to the clients in equal shares, in order, as in batched_layers.py.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import relu
from torch.utils.hooks import RemovableHandle

from hanse.learners.batched_clients.batched_layers import BIAS, WEIGHT, BatchedLayer, Drop, Own
from hanse.learners.injection.attached_adapter import EMBEDDING, ENCODER, PROMPT
from hanse.learners.models.layers import replaced

MADE = (
    EMBEDDING,
    *(f"{ENCODER}mlp_head.{at}{what}" for at in (0, 2, 4) for what in (WEIGHT, BIAS)),
)


class Prompt(BatchedLayer):
    """Prompt tuning: vectors before the words. base: PEFT's model, which passes on what it gets."""

    def attach(self, own: Own, scaling: Tensor, drop: Drop | None, layer: int) -> RemovableHandle:
        vectors = self.vectors(own)  # (K, vectors, width)

        def before(_: Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
            each = vectors.repeat_interleave(len(named["input_ids"]) // len(vectors), dim=0)
            return inputs, {**named, **self.behind(each, named)}

        handle: RemovableHandle = self.base.register_forward_pre_hook(before, with_kwargs=True)
        return handle

    def vectors(self, own: Own) -> Tensor:
        """(K, vectors, width) of all clients."""
        return own[PROMPT]

    def behind(self, each: Tensor, named: dict[str, Any]) -> dict[str, Any]:
        """What the base model is called with instead. each: (R, vectors, width), of every row."""
        words = self.base.word_embeddings(named["input_ids"])
        found = {"input_ids": None, "inputs_embeds": torch.cat([each.to(words.dtype), words], 1)}
        if (mask := named.get("attention_mask")) is not None:
            found["attention_mask"] = torch.cat([mask.new_ones(each.shape[:2]), mask], 1)
        return found


class MadePrompt(Prompt):
    """P-tuning: the vectors are what each client's MLP makes of its embeddings."""

    def vectors(self, own: Own) -> Tensor:
        x, *layers = (own[suffix] for suffix in MADE)
        for at in range(0, len(layers), 2):
            weight, bias = layers[at : at + 2]
            x = torch.baddbmm(bias[:, None], relu(x) if at else x, weight.transpose(1, 2))
        return x


class BatchedPrefix(Prompt):
    """Prefix tuning of a language model: keys and values in every layer, as of words before."""

    def behind(self, each: Tensor, named: dict[str, Any]) -> dict[str, Any]:
        encoder = self.base.prompt_encoder[self.base.active_adapter]
        longest = each.shape[1] + named["input_ids"].shape[1]
        with replaced([encoder], lambda _: each):  # PEFT knows each architecture's cache
            return {"past_key_values": self.base.get_prompt(len(each), max_cache_len=longest)}
