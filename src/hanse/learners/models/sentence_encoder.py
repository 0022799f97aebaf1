"""Sentence embeddings: vectors that are nearer to each other for more similar texts.

Sentence-BERT (Reimers & Gurevych 2019, arXiv:1908.10084): the mean of a text's token states.
"""

import hashlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hanse import atomic_files
from hanse.data.tokenization.vocabulary import refuse_beyond
from hanse.errors import UserError
from hanse.learners.models import pretrained
from hanse.learners.models.model_files import cache_folder
from hanse.learners.models.padding import padding_mask
from hanse.observability.progress import track
from hanse.observability.steps import Activity, Work

log = logging.getLogger(__name__)

LENGTH = 128  # tokens that are read of a text; all-MiniLM-L6-v2 was trained on as many
BATCH = 32  # texts of similar length

Vectors = NDArray[np.float32]  # (texts, width), each of length 1


def embeddings(name: str, texts: Sequence[str]) -> Vectors:
    """The vector of each text, by the encoder of that name.

    Vectors are cached on disk, so that a resumed run has the same. Raises UserError if there is no
    such encoder.
    """
    source = pretrained.find(name)
    _refuse_decoders(name, source.config)
    model, tokenizer, _ = source.load(AutoModel, torch.float32, spare="pooler")
    distinct = sorted(set(texts))  # equal texts get equal vectors
    ids = tokenizer(distinct, truncation=True, max_length=LENGTH)["input_ids"]
    file = cache_folder() / "vectors" / f"{_digest(model, ids)}.vectors"
    vectors = _cached(file)
    if vectors is None:
        vocabulary = getattr(source.config, "vocab_size", None)
        for row, text in zip(ids, distinct, strict=True):
            refuse_beyond(row, tokenizer, vocabulary, f"{text!r:.60}")
        vectors = _encoded(model, ids)
        buffer = io.BytesIO()
        np.save(buffer, vectors)
        # Private: vectors reveal something of the texts.
        atomic_files.write_hashed(file, buffer.getvalue(), private=True)
        atomic_files.sweep(file.parent, age=atomic_files.DAY)
    index = {text: n for n, text in enumerate(distinct)}
    return vectors[[index[text] for text in texts]]


def _encoded(model: Any, ids: list[list[int]]) -> Vectors:
    """The vector of each list of tokens."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    means = torch.empty(len(ids), model.config.hidden_size)
    with torch.inference_mode():
        for batch in track(batches, Work(Activity.EMBEDDING, total=len(ids)), BATCH):
            tokens = [torch.tensor(ids[index]) for index in batch]
            padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
            lengths = torch.tensor([len(row) for row in tokens])
            mask = padding_mask(lengths, padded.shape[1])
            means[batch] = _means(model, padded.to(device), mask.to(device)).cpu()
    vectors: Vectors = means.numpy()
    return vectors


def _means(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """(batch, width): the mean of each text's last states over its own tokens, of length 1."""
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state  # (batch, tokens, width)
    return normalize((states * mask[..., None]).sum(dim=1), dim=-1)


def _refuse_decoders(name: str, config: Any) -> None:
    """Raise UserError for a model that generates: its last states say little of a whole text."""
    kinds = config.architectures or [type(config).__name__]
    generates = set(kinds) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if generates or getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"the model {name} is a {kinds[0]}, which is no sentence encoder; choose an encoder, "
            "such as minilm-l6."
        )


def _digest(model: Any, ids: list[list[int]]) -> str:
    """A hash of an encoder and the tokens that it encodes."""
    digest = hashlib.sha256(repr(ids).encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def _cached(file: Path) -> Vectors | None:
    """The vectors in a file; None if there is none, or a damaged one.

    Raises UserError if it may not be read: new vectors might divide the rows in another way.
    """
    try:
        content = atomic_files.find_hashed(file)
    except atomic_files.DamagedError as error:
        log.warning("%s; the vectors are computed again", error)
        content = None
    if content is None:
        return None
    vectors: Vectors = np.load(io.BytesIO(content), allow_pickle=False)
    return vectors
