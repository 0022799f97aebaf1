"""The tokenizer of a model, loaded without the model's weights and without torch."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.models.model_files import REPOSITORY, converted, gguf, locate
from hanse.learners.models.tokenizers import chat_templates
from hanse.tensors import json_text
from hanse.tensors.json_text import JsonError

with lazy_imports():
    import transformers


@dataclass(frozen=True)
class ModelTokenizer:
    """A model's tokenizer, and the facts of its configuration that rows depend on.

    positions: the most tokens that the model reads at once; None if it is not known.
    causal: it predicts the next token, as far as the name of its architecture tells.
    """

    tokenizer: Any
    positions: int | None
    causal: bool


def find(name: str) -> ModelTokenizer:
    """The tokenizer of a model; raises UserError if it cannot be loaded from this machine."""
    file = gguf(name)
    options: dict[str, Any] = {"local_files_only": True}
    if file is None:
        place = locate(name)
    elif folder := converted(file):
        place = str(folder)
    else:
        place, options = str(file.parent), {"gguf_file": file.name}
    transformers.utils.logging.set_verbosity_error()
    try:
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(place, **options)
    except Exception as error:  # a damaged file may raise anything
        hub = REPOSITORY.fullmatch(name) and not Path(name).exists()
        reason = "it is not on this machine" if hub else f"it cannot be loaded: {error}"
        raise UserError(f"the tokenizer of {name} is missing, since {reason}.") from None
    config = _config(Path(place))
    names = config.get("architectures") or []
    causal = not names or any("CausalLM" in name or "LMHeadModel" in name for name in names)
    limits = (config.get("max_position_embeddings"), config.get("n_positions"))
    positions = next((limit for limit in limits if isinstance(limit, int)), None)
    return ModelTokenizer(chat_templates.bound(tokenizer), positions, causal)


def _config(folder: Path) -> dict[str, Any]:
    """The configuration in a model's folder; empty if it has none that can be read."""
    with suppress(OSError, JsonError):
        return json_text.read_object(folder / "config.json")
    return {}
