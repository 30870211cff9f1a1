"""What docs/security.md says of tests and limits is so."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from trimodal import config

UNITS = {"": 1, "s": 1, "h": 3600, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "security.md").read_text(encoding="utf-8")
LIMIT = re.compile(r"^\| ([\d,]+) ?(\w*) \| `(\w+)\.(\w+)` \| .+ \|$", re.MULTILINE)
TEST = re.compile(r"`((?:\w+/)?test_\w+\.py)::(test_\w+)`")


def _in_code(place: str, name: str) -> Any:
    if hasattr(config, place):
        return getattr(getattr(config, place), name)
    return getattr(importlib.import_module(f"trimodal_serving.{place}"), name)


@pytest.mark.parametrize(("number", "unit", "place", "name"), LIMIT.findall(PAGE))
def test_a_limit_is_that_of_the_code(number: str, unit: str, place: str, name: str) -> None:
    assert _in_code(place, name) == int(number.replace(",", "")) * UNITS[unit]


def test_every_limit_is_looked_at() -> None:
    table = PAGE.partition("## Limits and their motives")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(LIMIT.findall(PAGE)) >= 30


def test_every_test_that_is_named_is_there() -> None:
    found = TEST.findall(PAGE)
    assert len(found) >= 50
    for file, name in found:
        trees = [ast.parse(path.read_text(encoding="utf-8")) for path in TESTS.rglob(file)]
        nodes = [node for tree in trees for node in tree.body]
        assert name in {node.name for node in nodes if isinstance(node, ast.FunctionDef)}, file


def test_every_abuse_has_a_test() -> None:
    table = PAGE.partition("## What is abused, and the test")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 30
    assert [row for row in rows if not TEST.search(row)] == []
