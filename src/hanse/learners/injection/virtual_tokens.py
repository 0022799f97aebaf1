"""Virtual tokens: the trained vectors that some adapters put before every text."""

from typing import Any

import torch
from peft import PeftModel, PeftType
from torch import Tensor

from hanse.errors import UserError
from hanse.learners.injection.adapter import Adapter
from hanse.learners.training.out_of_memory import is_shortage

EMBEDDED = (PeftType.PROMPT_TUNING, PeftType.P_TUNING)  # in the input; others are in the cache


def sizes(model: Any) -> dict[str, Any]:
    """The sizes of a model that PEFT needs, and does not find in every model's configuration.

    A virtual token is as wide as an embedding, which in some models is narrower than a layer.
    """
    config, words = model.config.get_text_config(), model.get_input_embeddings()
    return {
        "token_dim": getattr(words, "base_layer", words).embedding_dim,
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": getattr(config, "num_attention_heads", 1),  # not used for embeddings
    }


def count(model: PeftModel, adapter: str | None) -> int:
    """The number of an adapter's virtual tokens; adapter None: the base model alone."""
    if adapter is None or not model.peft_config[adapter].is_prompt_learning:
        return 0
    number: int = getattr(model.peft_config[adapter], "num_virtual_tokens", 0)
    return number


def are_embedded(model: PeftModel, adapter: str | None) -> bool:
    """Tell if an adapter's virtual tokens are embeddings, which the base model reads like text."""
    return adapter is not None and model.peft_config[adapter].peft_type in EMBEDDED


def are_cached(model: PeftModel, adapter: str | None) -> bool:
    """Tell if an adapter's virtual tokens are keys and values, which PEFT puts into the cache."""
    prompted = adapter is not None and model.peft_config[adapter].is_prompt_learning
    return prompted and not are_embedded(model, adapter)


def embedded(model: PeftModel, ids: Tensor, mask: Tensor) -> Tensor:
    """(R, T, H): the embeddings of rows that begin with the active adapter's virtual tokens.

    ids: (R, T) tokens, with a placeholder for each virtual token; mask: (R, T), zero at padding,
        which may be on either side.
    """
    number = count(model, str(model.active_adapter))
    position = mask.cumsum(dim=1) * mask  # 1 at the first token of a row, 2 at the second
    embed: Any = model.word_embeddings
    words: Tensor = embed(ids)
    vectors = model.get_prompt(batch_size=1)[0, :number].to(words.dtype)
    virtual = (position >= 1) & (position <= number)
    return words.masked_scatter(virtual[..., None], vectors.repeat(len(ids), 1))


def refuse_unread(model: PeftModel, settings: Adapter) -> None:
    """Raise UserError if the model fails on one token with the active adapter.

    PEFT puts keys and values into any model, but a model whose cache has another shape then fails.
    A model on the meta device cannot be called, and is not checked.
    """
    if model.device.type == "meta":
        return
    ids = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    try:
        with torch.no_grad():
            model(**inputs)
    except Exception as error:  # architectures raise errors of many types
        if is_shortage(error):
            raise
        raise UserError(settings.refusal(model, error)) from None
