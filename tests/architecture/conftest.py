"""What the tests of the repository look at.

def test_something(root: Path, python_files: list[Path]) -> None: ...
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ("src", "kernels", "serving")
PYTHON_ROOTS = (*SOURCE_ROOTS, "tests", "benchmarks", "deploy", "examples")
GENERATED = {".git", ".venv", "runs", "data", "dist"}
CACHES = {"__pycache__", ".pytest_cache", ".hypothesis", ".ruff_cache", ".import_linter_cache"}


def _files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        skipped = CACHES | (GENERATED if Path(folder) == ROOT else set())
        folders[:] = sorted(set(folders) - skipped)
        yield from (Path(folder) / name for name in sorted(names))


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """Every file of the project, without what set-up, tests and runs leave behind."""
    return list(_files())


@pytest.fixture(scope="session")
def python_files(files: list[Path]) -> list[Path]:
    """Every module of the project: packages, tests, benchmarks, deployment and examples."""
    return [
        path
        for path in files
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PYTHON_ROOTS
    ]


@pytest.fixture(scope="session")
def source_files(python_files: list[Path]) -> list[Path]:
    """Every module of the three packages."""
    return [path for path in python_files if path.relative_to(ROOT).parts[0] in SOURCE_ROOTS]
