"""The pages in a real browser: nothing sticks out, overlaps or is too small on a phone."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest

from folders import baselines_folder, divided, finished, record, run_folder
from hanse.reports.baselines.page import write_baselines_report
from hanse.reports.comparison.comparison import compare
from hanse.reports.comparison.page import write_comparison
from hanse.reports.run.page import write_report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
SMALLEST = 9  # pixels, of a letter's box
# Narrower than any window of the browser: so the page lies in a frame, and tells its host.
LOOK = """<script>
const box = node => node.getBoundingClientRect();
const found = {content: document.documentElement.scrollWidth, small: [], overlapping: []};
for (const svg of document.querySelectorAll("svg")) {
  const scale = box(svg).width / svg.viewBox.baseVal.width;
  const texts = [...svg.querySelectorAll("text")];
  for (const text of texts)
    if (parseFloat(getComputedStyle(text).fontSize) * scale < SMALLEST)
      found.small.push(text.textContent);
  texts.forEach((one, at) => texts.slice(at + 1).forEach(other => {
    const a = box(one), b = box(other);
    if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
      found.overlapping.push([one.textContent, other.textContent]);
  }));
}
parent.document.title = JSON.stringify(found);
</script></body>""".replace("SMALLEST", str(SMALLEST))
HOST = '<title></title><iframe style="width: {width}px; border: 0" srcdoc="{page}"></iframe>'

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not BROWSER, reason="there is no Chromium to look at pages with"),
]


def look(page: Path, width: int) -> dict[str, object]:
    """What a script finds in the page at this width, in pixels."""
    framed = escape(page.read_text().replace("</body>", LOOK), quote=True)
    host = page.with_name("host.html")
    host.write_text(HOST.format(width=width, page=framed))
    options = (
        "--headless --no-sandbox --disable-gpu --hide-scrollbars --disable-background-networking"
    )
    command = [BROWSER, *options.split(), "--window-size=1300,900", "--dump-dom"]
    command += [f"--user-data-dir={page.parent / 'browser'}", host.absolute().as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    title = re.search("<title>(.*?)</title>", dom, re.S)
    assert title is not None
    found: dict[str, object] = json.loads(unescape(title[1]))
    return found


def large_run(home: Path) -> Path:
    """50 clients, 20 labels, long names, 40 rounds."""
    labels = [f"a kind of illness {number}" for number in range(20)]
    clients = [f"university-hospital-of-{number:02d}" for number in range(50)]
    own = {name: {"accuracy": 0.5, "accuracy_se": 0.1} for name in clients}
    rounds = [record(n, validation={"accuracy": n / 40, "accuracy_se": 0.05}) for n in range(41)]
    rounds[-1]["client_test"] = own
    run = run_folder(home, rounds)
    counts = {label: 3**number % 1000 for number, label in enumerate(labels)}
    divided(run, dict.fromkeys(clients, counts), labels)
    return write_report(run)


def small_run(home: Path) -> Path:
    """Two clients without labels, one round, long samples."""
    said = {"prompt": "Why? " * 200, "answer": "Because" * 50, "said": "Well, " * 100}
    tests = {"test": {"exact_match": 0.5}}
    rounds = [record(0, **tests), record(1, **tests)]
    samples = {0: [said] * 6, 1: [said] * 6}
    items = {0: [0.0, 1.0], 1: [1.0, 1.0]}
    run = run_folder(home, rounds, items, task="generation", samples=samples)
    divided(run, {"a": {"rows": 7}, "b": {"rows": 12_345}}, [])
    return write_report(run)


def baselines(home: Path) -> Path:
    """Twelve silos with long names, two seeds."""
    names = [f"university-hospital-of-{number:02d}" for number in range(12)]
    alone = {name: [0.6 + 0.01 * number, 0.65] for number, name in enumerate(names)}
    together = {"federated": [0.8, 0.81], "centralised": [0.82, 0.83]}
    values = {"alone": alone, "alone-longer": alone, **{k: {"": v} for k, v in together.items()}}
    return write_baselines_report(baselines_folder(home, values))


def comparison(home: Path) -> Path:
    """Five runs that differ in a long setting."""
    runs = [
        finished(home / f"quickstart-with-fedprox-{n}", [0.0, 1.0], [1.0, 1.0], objective="x" * n)
        for n in range(20, 25)
    ]
    return write_comparison(compare(runs), home / "compare.html")


@pytest.mark.parametrize("width", [320, 400, 1200])
@pytest.mark.parametrize("make", [large_run, small_run, baselines, comparison])
def test_pages_fit(tmp_path: Path, make, width: int) -> None:
    found = look(make(tmp_path / "page"), width)
    assert found == {"content": width, "small": [], "overlapping": []}
