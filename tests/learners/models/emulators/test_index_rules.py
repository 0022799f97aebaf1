"""Rules that choose layers, against the published lists of offsite tuning and FedOT."""

import pytest

from hanse.learners.models.emulators.compressors.layer_drop import LayerDrop
from hanse.learners.models.emulators.index_rules import Rule, kept_positions

OPT_1_3B = [0, 3, 5, 8, 11, 14, 16, 19]
GPT2_XL = [0, 3, 6, 9, 11, 14, 17, 20, 23, 26, 29, 32, 34, 37, 40, 43]
OPT_6_7B = [0, 2, 3, 5, 6, 8, 10, 11, 13, 14, 16, 17, 19, 21, 22, 24, 25, 27]
FEDOT = [0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 18, 19, 20, 21, 23, 24, 25, 27]


@pytest.mark.parametrize(
    ("layers", "rule", "positions"),
    [
        (20, "round", OPT_1_3B),
        (44, "round", GPT2_XL),
        (28, "round", OPT_6_7B),
        (28, "int", FEDOT),
    ],
)
def test_the_published_lists(layers: int, rule: Rule, positions: list[int]) -> None:
    assert kept_positions(layers, len(positions), rule) == positions
    other: Rule = "int" if rule == "round" else "round"
    assert kept_positions(layers, len(positions), other) != positions
    assert LayerDrop(keep=len(positions), rule=rule).kept(layers) == positions


def test_the_share_of_fedot_keeps_as_many_layers() -> None:
    assert LayerDrop(drop=0.2, rule="int").kept(28) == FEDOT
    assert len(LayerDrop(drop=0.5).kept(26)) == 13
    assert LayerDrop(drop=0.0).kept(5) == [0, 1, 2, 3, 4]
    assert LayerDrop(drop=0.99).kept(5) == [0]


@pytest.mark.parametrize("rule", ["round", "int"])
def test_positions_ascend_from_the_first_to_the_last(rule: Rule) -> None:
    for layers in range(2, 60):
        for kept in range(2, layers + 1):
            positions = kept_positions(layers, kept, rule)
            assert positions == sorted(set(positions))
            assert (positions[0], positions[-1], len(positions)) == (0, layers - 1, kept)


@pytest.mark.parametrize("kept", [0, 6])
def test_no_more_layers_than_there_are(kept: int) -> None:
    with pytest.raises(ValueError, match="of 5 layers"):
        kept_positions(5, kept, "round")
