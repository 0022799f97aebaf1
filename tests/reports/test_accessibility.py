"""Pages can be read by everyone: enough contrast, headed tables, regions that scroll by keys."""

import re
from pathlib import Path

import pytest

from folders import baselines_folder, finished
from hanse.reports.baselines.page import write_baselines_report
from hanse.reports.comparison.comparison import compare
from hanse.reports.comparison.page import write_comparison
from hanse.reports.run.page import write_report
from reports.test_run_page import Page


def run_page(home: Path) -> Path:
    return write_report(finished(home / "run", [0.0, 1.0], [1.0, 1.0]))


def comparison_page(home: Path) -> Path:
    runs = [finished(home / name, [0.0, 1.0], [1.0, 1.0], seed=at) for at, name in enumerate("ab")]
    return write_comparison(compare(runs), home / "compare.html")


def baselines_page(home: Path) -> Path:
    alone = {"alone": {"a": [0.6, 0.7]}, "alone-longer": {"a": [0.6, 0.7]}}
    return write_baselines_report(
        baselines_folder(home / "baselines", alone | {"federated": {"": [0.8, 0.9]}})
    )


PAGES = pytest.mark.parametrize("make", [run_page, comparison_page, baselines_page])


@PAGES
def test_tables_have_headers_and_whatever_scrolls_is_a_named_region(tmp_path: Path, make) -> None:
    tags = Page(make(tmp_path).read_text()).tags
    headers = [attributes.get("scope") for tag, attributes in tags if tag == "th"]
    assert headers and set(headers) <= {"col", "row"} and "row" in headers
    tables = sum(tag == "table" for tag, _ in tags)
    scrolling = [a for tag, a in tags if tag == "pre" or a.get("class") == "scroll"]
    assert len(scrolling) >= tables > 0
    for attributes in scrolling:
        assert attributes["role"] == "region" and attributes["tabindex"] == "0"
        assert attributes["aria-label"]


def _digits(colour: str) -> list[int]:
    """Red, green and blue of #rgb or #rrggbb, each up to 255."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    return [int(digits[at : at + 2], 16) for at in (0, 2, 4)]


def luminance(colour: str) -> float:
    """The relative luminance of #rgb or #rrggbb (WCAG 2.2)."""
    shares = [value / 255 for value in _digits(colour)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_from_its_ground_in_light_and_dark_and_print(tmp_path: Path) -> None:
    style = run_page(tmp_path).read_text().split("</style>")[0]
    schemes = [
        dict(re.findall(r"--(\w+): (#\w+)", block))
        for block in re.findall(r":root {([^}]*)", style)
    ]
    assert len(schemes) == 3
    for colours in schemes:
        for text in ("ink", "faint", "accent"):
            for ground in ("paper", "shade"):
                pair = sorted((luminance(colours[text]), luminance(colours[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (text, ground)


def test_the_edge_of_what_scrolls_stands_out_in_light_and_dark(tmp_path: Path) -> None:
    """A black shadow on a dark page is hardly seen."""
    style = run_page(tmp_path).read_text().split("</style>")[0]
    blocks = re.findall(r":root {([^}]*)", style)[:2]
    for block in blocks:
        colours = dict(re.findall(r"--(\w+): (#\w+)", block))
        *edge, opacity = map(float, re.findall(r"[\d.]+", block.split("--edge: rgb(")[1])[:4])
        for ground in ("paper", "shade"):
            over = _digits(colours[ground])
            mixed = [round(o + opacity * (e - o)) for o, e in zip(over, edge, strict=True)]
            colour = "#" + "".join(f"{value:02x}" for value in mixed)
            pair = sorted((luminance(colour), luminance(colours[ground])))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 1.5, (block, ground)
