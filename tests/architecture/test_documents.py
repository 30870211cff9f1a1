"""What the documents say exists, and nothing in the project points outside it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

README_LINES = 180
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
ENTRY = re.compile(r"(?P<indent>[ │├└─]*)(?P<name>[\w.\-/{},*]+)(\s|$)")
# each pattern has a class of one letter, so that this file does not hold what it looks for
FOREIGN = re.compile(
    r"/w[o]rk/|\.\./sh[a]red|/opt/(wh[e]els|p[y]pi)|p[y]pi\.org|p[y]thonhosted|"
    r"registry\.n[p]mjs|deb\.d[e]bian|w[o]rkplace|(?i:\bissue #?\d)"
)
TEXT = {".md", ".py", ".toml", ".txt", ".yaml", ".yml", ".json", ".html", ".j2", ".css", ".js", ""}


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    """The text of README.md."""
    return (root / "README.md").read_text(encoding="utf-8")


def _tree(text: str) -> Iterator[str]:
    """Paths of an indented tree: `name/  what it is`, one entry a line, two spaces a level or more.

    A line that is indented past the start of the descriptions continues one.
    """
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = ENTRY.match(line)
        if match is None or len(match["indent"]) > 12:
            continue
        depth = len(match["indent"])
        parents = [(level, name) for level, name in parents if level < depth]
        path = "".join(name for _, name in parents) + match["name"]
        if path.endswith("/"):
            parents.append((depth, match["name"]))
        yield path


def test_readme_is_short(readme: str) -> None:
    assert len(readme.splitlines()) <= README_LINES


def test_readme_tree_is_on_disk(root: Path, readme: str) -> None:
    trees = [
        block for block in FENCE.findall(readme) if re.search(r"^\W*src/trimodal/", block, re.M)
    ]
    assert len(trees) == 1, "README.md must have one fenced tree with an entry src/trimodal/"
    paths = list(_tree(trees[0]))
    assert len(paths) >= 10
    assert [path for path in paths if not list(root.glob(path.rstrip("/")))] == []


def test_relative_links_resolve(root: Path, files: list[Path]) -> None:
    dead = []
    for path in (path for path in files if path.suffix == ".md"):
        text = FENCE.sub("", path.read_text(encoding="utf-8"))
        for match in LINK.finditer(text):
            target = (match[1] or match[2]).partition("#")[0]
            if not target or re.match(r"[a-z]+:", target):
                continue
            if not (path.parent / target).exists():
                dead.append(f"{path.relative_to(root)}: {target}")
    assert dead == []


def test_nothing_points_outside_the_project(root: Path, files: list[Path]) -> None:
    found = []
    for path in (path for path in files if path.suffix in TEXT):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if FOREIGN.search(line):
                found.append(f"{path.relative_to(root).as_posix()}:{number}: {line.strip()[:80]}")
    assert found == []


def test_no_file_is_large(root: Path, files: list[Path]) -> None:
    sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in files}
    assert {name: size for name, size in sizes.items() if size > 1 << 20} == {}
