"""The tree in docs/architecture.md names every file of the package, and none that is not there."""

import re

from samples import ROOT


def _named() -> set[str]:
    """The paths in the tree."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"## The tree\n\n```\n(.*?)```", text, re.S)
    assert tree is not None
    folders: list[str] = []
    found = set()
    for line in tree[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders = folders[:depth]
        if name.endswith("/") and len(line.split()) == 1:
            folders.append(name)
        else:
            found.add("".join(folders) + name)
    return found


def test_the_tree_is_true() -> None:
    named = _named()
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
    package = ROOT / "src" / "hanse"
    files = {
        str(path.relative_to(ROOT))
        for path in package.rglob("*")
        if path.suffix in (".py", ".jinja") and path.name != "__init__.py"
    }
    assert files - named == set()


def test_every_path_on_the_page_is_there() -> None:
    page = (
        (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## The tree")[0]
    )
    places = set(re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", page))
    assert len(places) > 50
    homes = [ROOT, ROOT / "src" / "hanse", ROOT / "src" / "hanse" / "experiment"]
    assert [place for place in sorted(places) if not any((h / place).exists() for h in homes)] == []


def test_the_readme_names_the_folders() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The tree")[2]
    named = re.findall(r"^([a-z]+)/ ", text, re.M)
    package = ROOT / "src" / "hanse"
    assert sorted(named) == sorted(
        p.name for p in package.iterdir() if (p / "__init__.py").exists()
    )
