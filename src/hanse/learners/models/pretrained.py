"""A model and its tokenizer, loaded by name; code that comes with them is never run."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as transformers_logging

from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.models.layers import heads
from hanse.learners.models.model_files import locate
from hanse.learners.models.tokenizers.chat_templates import bound
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work

with lazy_imports():
    from hanse.learners.models.emulators import stored_form

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


@dataclass(frozen=True)
class PretrainedModel:
    """A model whose configuration is read, and its weights not yet.

    place: the folder or hub id for transformers.
    """

    name: str
    place: str
    config: Any

    def tokenizer(self) -> Any:
        """Load the tokenizer alone; raises UserError if that fails."""
        with _readable(self.name):
            return bound(AutoTokenizer.from_pretrained(self.place, trust_remote_code=False))

    def load(
        self,
        auto: type[Any],
        dtype: torch.dtype,
        spare: str | None = None,
        fresh: bool = False,
        **options: Any,
    ) -> "LoadedModel":
        """Load the model and its tokenizer; raises UserError if that fails.

        auto: transformers' class for such models, such as AutoModelForCausalLM.
        spare: weights with this text in their name may be missing, since they are not used.
        fresh: weights of the head may be missing, or of another size; it is a new one then.
        options: further arguments of `from_pretrained`, on the form of the weights.
        """
        tokenizer = self.tokenizer()
        with _readable(self.name):
            stored_form.register()
            model, report = auto.from_pretrained(
                self.place,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=fresh,
                **options,
            )
        absent = {key for key in report["missing_keys"] if spare is None or spare not in key}
        absent |= {key for key, *_ in report["mismatched_keys"]}
        new = [name for name in (heads(model) if fresh else ()) if _within(name, absent)]
        missing = sorted(absent.difference(*(_within(name, absent) for name in new)))
        if missing:  # transformers fills them with random numbers
            raise UserError(
                f"the weights of {self.name} lack {missing[0]}; the folder does not hold the "
                "whole model."
            )
        return LoadedModel(model.eval(), tokenizer, tuple(new))


class LoadedModel(NamedTuple):
    """A model in memory, its tokenizer, and the names of its new modules."""

    model: Any
    tokenizer: Any
    fresh: tuple[str, ...]


def _within(name: str, keys: Iterable[str]) -> set[str]:
    """The weights that belong to a module."""
    return {key for key in keys if key.startswith(f"{name}.")}


def find(name: str, local: bool = False) -> PretrainedModel:
    """Read the configuration of a model by its name; raises UserError if there is none.

    local: ask no hub for it.
    """
    report(Work(Activity.LOADING_MODEL, Path(name).name))
    place = locate(name)
    with _readable(name):
        options = {"trust_remote_code": False, "local_files_only": local}
        return PretrainedModel(name, place, AutoConfig.from_pretrained(place, **options))


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Within this context, any error of transformers is raised as a UserError."""
    try:
        yield
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"the model {name} cannot be loaded: {first}") from error
