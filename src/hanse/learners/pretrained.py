"""A model and its tokenizer in memory, from a name; nothing that came with them is run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as transformers_logging

from hanse.errors import UserError
from hanse.learners.sources import locate
from hanse.progress import say

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def pretrained(
    name: str,
    auto: type[Any],
    dtype: torch.dtype,
    check: Callable[[str, Any], None],
    spare: str | None = None,
) -> tuple[Any, Any]:
    """(model, tokenizer) of a name that `sources.locate` knows.

    auto: transformers' class that picks the model's own, such as AutoModelForCausalLM.
    check: called with the name and the model's configuration before weights are read.
    spare: weights with this in their name may be missing, since nobody uses them.
    Raises UserError with what is wrong.
    """
    say(f"loading {Path(name).name}")
    place = locate(name)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        check(name, config)
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        model, report = auto.from_pretrained(
            place,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except UserError:
        raise
    except Exception as error:  # whatever a strange folder makes transformers raise
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"the model {name} cannot be loaded: {first}") from error
    missing = sorted(key for key in report["missing_keys"] if spare is None or spare not in key)
    if missing:  # they would be filled at random
        raise UserError(
            f"the weights of {name} lack {missing[0]}; the folder does not hold the whole model."
        )
    return model.eval(), tokenizer
