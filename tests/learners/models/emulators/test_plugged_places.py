"""Names of an emulator's tensors in the whole model."""

import pytest

from hanse.errors import UserError
from hanse.learners.models.emulators.places import renumbered


def test_numbers_behind_the_prefix_alone_are_changed() -> None:
    names = ["m.layers.0.q.1.A", "m.layers.3.q.A", "m.layers.10.layers.1.A"]
    layers = [0, 1, 5, 7, 8, 9, 12, 13, 14, 15, 29]
    assert renumbered(names, "m.layers", layers) == {
        "m.layers.0.q.1.A": "m.layers.0.q.1.A",
        "m.layers.3.q.A": "m.layers.7.q.A",
        "m.layers.10.layers.1.A": "m.layers.29.layers.1.A",
    }


@pytest.mark.parametrize("name", ["m.norm.weight", "m.layers.weight", "m.layers.x.A", "layers.0.A"])
def test_a_tensor_outside_the_layers_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is in no layer"):
        renumbered([name], "m.layers", [0, 1])
