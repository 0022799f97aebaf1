"""A model and its tokenizer in memory, from a name; nothing that came with them is run."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as transformers_logging

from hanse.errors import UserError
from hanse.learners.models.chat_templates import bound
from hanse.learners.models.layers import heads
from hanse.learners.models.model_files import locate
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


@dataclass(frozen=True)
class Found:
    """A model whose configuration was read, and its weights not yet."""

    name: str
    place: str
    config: Any

    def load(
        self,
        auto: type[Any],
        dtype: torch.dtype,
        spare: str | None = None,
        fresh: bool = False,
        **options: Any,
    ) -> "Held":
        """The model and its tokenizer; raises UserError with what is wrong.

        auto: transformers' class that picks the model's own, such as AutoModelForCausalLM.
        spare: weights with this in their name may be missing, since nobody uses them.
        fresh: so may those of the head, which is then a new one.
        options: what else transformers is told of how to hold the weights.
        """
        with _readable(self.name):
            tokenizer = bound(AutoTokenizer.from_pretrained(self.place, trust_remote_code=False))
            model, report = auto.from_pretrained(
                self.place,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
        lacking = {key for key in report["missing_keys"] if spare is None or spare not in key}
        new = [name for name in (heads(model) if fresh else ()) if _within(name, lacking)]
        missing = sorted(lacking.difference(*(_within(name, lacking) for name in new)))
        if missing:  # they would be filled at random
            raise UserError(
                f"the weights of {self.name} lack {missing[0]}; the folder does not hold the "
                "whole model."
            )
        return Held(model.eval(), tokenizer, tuple(new))


class Held(NamedTuple):
    """A model in memory, its tokenizer, and the names of those of its modules that are new."""

    model: Any
    tokenizer: Any
    fresh: tuple[str, ...]


def _within(name: str, keys: Iterable[str]) -> set[str]:
    """Those weights that belong to a module."""
    return {key for key in keys if key.startswith(f"{name}.")}


def find(name: str) -> Found:
    """The model of a name that `model_files.locate` knows; raises UserError if there is none."""
    report(Work(Activity.LOADING_MODEL, Path(name).name))
    place = locate(name)
    with _readable(name):
        return Found(name, place, AutoConfig.from_pretrained(place, trust_remote_code=False))


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Whatever a strange folder makes transformers raise, as a UserError."""
    try:
        yield
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"the model {name} cannot be loaded: {first}") from error
