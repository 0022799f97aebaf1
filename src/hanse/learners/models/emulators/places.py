"""The places of an emulator's trained tensors in the model that it was made of."""

from collections.abc import Iterable, Sequence
from typing import Any

from hanse.errors import UserError
from hanse.learners.models.emulators import record
from hanse.learners.models.layers import layer_list
from hanse.tensors.named import Tensors, refuse_unlike


def names_in_whole(name: str, model: Any, tensors: Tensors, whole: Tensors) -> dict[str, str]:
    """For each of an emulator's trained tensors, its name in the whole model.

    name, model: the emulator's. Raises UserError if it is no emulator, and unless the whole model
    trains the same tensors in its own layers.
    """
    entry = record.of_model(name)
    if entry is None:
        raise UserError(f"{name} is no emulator; make one with `hanse emulator`.")
    names = renumbered(tensors, layer_list(model)[0], entry.layers)
    refuse_unlike(whole, {names[own]: tensor for own, tensor in tensors.items()})
    return names


def renumbered(names: Iterable[str], prefix: str, layers: Sequence[int]) -> dict[str, str]:
    """Names of tensors with other numbers of layers, which stand behind the prefix.

    layers: the new number of each layer. Raises UserError for a tensor outside the layers.
    """
    places = {}
    for name in names:
        number, dot, inner = name.removeprefix(f"{prefix}.").partition(".")
        if not (name.startswith(f"{prefix}.") and dot and number.isdecimal()):
            raise UserError(
                f"the adapter trains {name}, which is in no layer; choose one in bottom and top "
                "layers alone, such as lora with layers_to_transform."
            )
        places[name] = f"{prefix}.{layers[int(number)]}.{inner}"
    return places
