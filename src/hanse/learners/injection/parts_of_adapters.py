"""Parts of an adapter, attached beside it: its top layers alone, with smaller matrices.

Each part is an adapter of its own in the same model: it computes no more than it trains, and the
frozen layers below it are skipped. Federated methods that grow an adapter train such parts.
"""

from typing import TYPE_CHECKING

from hanse.errors import UserError
from hanse.federation.interfaces.trained_tensors import DEPTH, WIDTH
from hanse.tensors import layouts
from hanse.tensors.serialization import Numbers

if TYPE_CHECKING:
    from hanse.learners.backbone import Backbone

KEPT = 4  # parts of one adapter; more than clients of one round train


def select(backbone: "Backbone", adapter: str, numbers: Numbers) -> str:
    """The name of the part of an adapter that the numbers ask for; without any, its own name.

    adapter: the whole one, or a part of it. The part is attached if it is not there yet; it begins
    with the leading blocks of the whole's initial tensors. Raises UserError for numbers that are no
    sizes.
    """
    if not numbers.keys() & {DEPTH, WIDTH}:
        return adapter
    depth, width = _size(numbers, DEPTH), _size(numbers, WIDTH)
    whole = backbone.adapters[backbone.adapters[adapter].whole or adapter]
    if whole.settings is None or not whole.settings.resizable:
        raise UserError(
            f"{backbone.name} has an adapter here that cannot grow, and the server asks for a part "
            "of it; choose the adapter houlsby, pfeiffer or lora."
        )
    settings = whole.settings.resized(backbone.model, depth, width)
    name = whole.parts.pop(settings, "")
    if not name:
        name = backbone.attach(settings, 0)
        part = backbone.adapters[name]
        part.whole = whole.name
        backbone.set_initial(name, layouts.cut(whole.initial, part.parameters))
    whole.parts[settings] = name
    while len(whole.parts) > KEPT:
        backbone.detach(whole.parts.pop(next(iter(whole.parts))))
    return name


def _size(numbers: Numbers, name: str) -> int:
    value = numbers.get(name, 0.0)
    if not 1 <= value < 2**31 or value != int(value):
        raise UserError(
            f"the server asks for {value:g} as {name}, and a whole number from 1 on is due; look "
            "after the algorithm at the server."
        )
    return int(value)
