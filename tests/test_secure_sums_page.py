"""docs/secure-sums.md says what is so: settings, bytes, neighbours, and what can be combined."""

import re
from dataclasses import MISSING, fields, replace

import pytest

from hanse.errors import UserError
from hanse.experiment.part_kinds import ALGORITHM
from hanse.federation.aggregators.secagg import SecAgg
from hanse.federation.compatibility.parts import check
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.federation.privacy.distributed_gaussian import DistributedGaussian
from hanse.federation.secure_sums.server_half import BOX, SHARE
from hanse.federation.secure_sums.statements import INDEX, KEYS, SIGNATURE
from hanse.randomness import RoundContext
from samples import ROOT

PAGE = (ROOT / "docs" / "secure-sums.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())


def test_its_table_has_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.split("## Settings")[1], re.M))
    settings = {field.name: field.default for field in fields(SecAgg)}
    assert rows.keys() == settings.keys()
    for name, default in settings.items():
        assert default is not MISSING
        assert rows[name] == str(default) or (default is None and "safe" in rows[name])


def test_its_bytes_are_those_of_the_messages() -> None:
    assert f"32 down, {INDEX + KEYS + SIGNATURE} up" in PAGE
    assert f"{INDEX + KEYS + SIGNATURE}k down, {BOX}k up" in PAGE
    assert f"{SIGNATURE}k down, {SHARE}(k + 1) up" in PAGE


def test_its_numbers_of_neighbours_and_steps_are_those_of_the_defaults() -> None:
    assert "Up to 16 silos each one's neighbours are all others" in TEXT
    assert all(SecAgg().plan(silos).complete for silos in range(3, 17))
    assert not SecAgg().plan(17).complete
    for silos in (50, 100, 1_000):
        assert f"{SecAgg().plan(silos).neighbours} of {silos:,}" in TEXT
    for silos in (4, 160):
        levels = SecAgg(bits=16)._grid(silos, 1.0).levels
        assert f"{silos} silos the grid has {levels:,} steps" in TEXT or f"it has {levels}" in TEXT
    seven = SecAgg(threshold=7).plan(11)
    assert f"help of {min(2 * 7 - 11, 7 - 1) - 1} silos" in seven.sentence()
    assert "With 11 silos and the threshold 7 that is the server with 3 silos." in TEXT


@pytest.mark.parametrize("name", ALGORITHM.names())
def test_it_lists_the_algorithms_that_work(name: str) -> None:
    part = ALGORITHM.build({name: {"share": ["x"]}} if name == "fedper" else name)
    combined = TEXT.split("Everything that needs sums alone:")[1]
    works, refused = combined.split("All else is refused")
    try:
        check(part, SecAgg())
    except UserError:
        assert f"`{name}`" in refused and f"`{name}`" not in works
    else:
        assert f"`{name}`" in works


def test_its_noise_is_that_of_the_mechanism() -> None:
    part = DistributedGaussian(epsilon=8).beside(SecAgg())
    eleven, thousand = (RoundContext(0, rounds=6, clients=n) for n in (11, 1000))
    assert "11 silos 7 − 2 = 5 shares" in TEXT
    assert (part.least_updates(eleven), part.released({}, eleven)["shares"]) == (7, 5)
    assert round(part.released({}, eleven)["noise_multiplier"], 1) == 1.6
    [_, remark] = replace(part, delta=0.5).beside(SecAgg()).remarks(eleven, 11, 74_498)
    assert "noise 57 times as long" in TEXT and "times as long as the mean can be" in remark
    steps, size = part._steps(74_498, eleven), 74_498
    assert round((size / 11) ** 0.5 * steps.deviation / steps.clip) == 57
    head = part._steps(770, thousand)
    assert 1 / 21 < (770 / 1000) ** 0.5 * head.deviation / head.clip < 1 / 19
    for name in ("fedavg", "fedprox", "fedopt", "diloco"):
        assert f"`{name}`" in TEXT.split("need the mean alone, such as")[1][:100]
        check(ALGORITHM.build(name), SecAgg(), Pipelines(Pipeline("upload", (), (part,))))
