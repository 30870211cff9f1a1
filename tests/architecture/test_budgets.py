"""Files and functions stay small enough to be read at once."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 500
MEDIAN_LINES = 200
FUNCTION_LINES = 60


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_file_is_long(root: Path, python_files: list[Path]) -> None:
    sizes = {path.relative_to(root).as_posix(): _lines(path) for path in python_files}
    assert {name: size for name, size in sizes.items() if size > FILE_LINES} == {}


def test_median_module_is_short(source_files: list[Path]) -> None:
    assert statistics.median(_lines(path) for path in source_files) <= MEDIAN_LINES


def test_no_function_is_long(root: Path, python_files: list[Path]) -> None:
    long = [
        f"{path.relative_to(root).as_posix()}: {name} has {size} lines"
        for path in python_files
        for name, size in _functions(path)
        if size > FUNCTION_LINES
    ]
    assert long == []
