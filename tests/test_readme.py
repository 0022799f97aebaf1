"""The README's tree names every file of the package, and none that is not there."""

import re

from samples import ROOT


def _named() -> set[str]:
    """The paths in the README's tree."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
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
