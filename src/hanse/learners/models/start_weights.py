"""The weights of a model before any training, read from its files again when they are needed.

The files are mapped into memory, one tensor's rows after the other, so that no second copy of the
model is in memory. The weights of a new head, which the files lack, are kept.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils import cached_file  # type: ignore[attr-defined]

from hanse.errors import UserError
from hanse.learners.models.model_files import locate

log = logging.getLogger(__name__)

SLICE = 2**22  # bytes of a file that are mapped at once, unless a row has more


@dataclass
class StartWeights:
    """The start weights of one model.

    places: the file and the name there of each weight that a file has. kept: those of new modules.
    applied: the hash of the change that the model has now; None if it is not known.
    """

    places: dict[str, tuple[Path, str]] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    applied: str | None = None

    @classmethod
    def of(cls, model: Any, name: str, fresh: Sequence[str] = ()) -> "StartWeights":
        """Those of a model that was loaded by its name, and has not changed since.

        fresh: modules that had no weights in the files, such as a new head. Raises UserError if no
        file has one of the other weights with the same values, since a copy of it would be needed.
        """
        files = _contents(folder(name))
        start = cls(kept={key: weight.clone() for key, weight in within(model, fresh).items()})
        for weight_name, weight in live(model).items():
            if weight_name in start.kept:
                continue
            place = _place(weight, _names(weight_name, model.base_model_prefix), files)
            if place is None:
                raise UserError(
                    f"a model whose weights change in place gets its start from its files, but "
                    f"those of {name} have {weight_name} under another name or in another form; "
                    "choose another model, or an algorithm that trains an adapter, such as fedavg."
                )
            start.places[weight_name] = place
        size = sum(weight.nbytes for weight in start.kept.values())
        log.info(
            "start weights: %.1f MB in memory, the others in the files of %s", size / 1e6, name
        )
        return start

    def keep(self, tensors: Mapping[str, Tensor]) -> None:
        """Let these tensors take the place of some that are kept."""
        self.kept |= tensors
        self.applied = None

    def restore(self, model: Any) -> None:
        """Set a model's weights to their start."""
        weights, self.applied = live(model), None
        for name, (file, key) in self.places.items():
            for rows, part in _slices(file, key):
                weights[name][rows].copy_(part)
        for name, tensor in self.kept.items():
            weights[name].copy_(tensor)


def folder(name: str) -> Path:
    """The folder with the files of a model that has been loaded."""
    place = Path(locate(name))
    if place.is_dir():
        return place
    return Path(str(cached_file(str(place), "config.json", local_files_only=True))).parent


def live(model: Any) -> dict[str, Tensor]:
    """All weights of a model by name, those in memory; a shared one has one name."""
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point()
    }


def within(model: Any, modules: Sequence[str]) -> dict[str, Tensor]:
    """The weights of a model that belong to these modules, by name."""
    prefixes = tuple(f"{module}." for module in modules)
    return {name: weight for name, weight in live(model).items() if name.startswith(prefixes)}


def _place(
    weight: Tensor, names: Iterable[str], files: Mapping[str, Path]
) -> tuple[Path, str] | None:
    """The file with the values of a weight, and its name there; None without one."""
    places = ((files[name], name) for name in names if name in files)
    return next((place for place in places if _equal(weight, *place)), None)


def _names(name: str, prefix: str) -> Iterable[str]:
    """The names that a weight may have in a file: a base model's have no prefix."""
    return name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"


def _contents(folder: Path) -> dict[str, Path]:
    """The file of each tensor in a folder."""
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as content:
            files |= dict.fromkeys(content.keys(), file)
    return files


def _equal(weight: Tensor, file: Path, key: str) -> bool:
    """True if a file has these values, apart from their type."""
    with safe_open(file, "pt") as content:
        shape = content.get_slice(key).get_shape()
    return list(weight.shape) == shape and all(
        torch.equal(weight[rows].cpu(), part.to(weight.dtype)) for rows, part in _slices(file, key)
    )


def _slices(file: Path, key: str) -> Iterator[tuple[Any, Tensor]]:
    """A tensor in pieces of some rows; the file is closed in between, which frees its pages."""
    with safe_open(file, "pt") as content:
        shape = content.get_slice(key).get_shape()
        if not shape:
            yield ..., content.get_tensor(key)
            return
    row = 4
    for size in shape[1:]:
        row *= size
    step = max(1, SLICE // row)
    for first in range(0, shape[0], step):
        rows = slice(first, first + step)
        with safe_open(file, "pt") as content:
            yield rows, content.get_slice(key)[rows]
