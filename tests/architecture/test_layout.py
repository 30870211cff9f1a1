"""Where files may stand, and what they may be called."""

import subprocess
import sys
from pathlib import Path

PACKAGES = {"src": "trimodal", "kernels": "trimodal_kernels", "serving": "trimodal_serving"}
VAGUE_NAMES = {"utils.py", "common.py", "factory.py", "helpers.py", "misc.py"}


def test_tests_are_no_packages(root: Path) -> None:
    assert sorted((root / "tests").rglob("__init__.py")) == []


def test_source_roots_hold_one_package_and_a_readme(root: Path, files: list[Path]) -> None:
    # an __init__.py beside the package would shadow the `kernels` that transformers imports
    for source_root, package in PACKAGES.items():
        inside = [
            path.relative_to(root / source_root)
            for path in files
            if path.is_relative_to(root / source_root)
        ]
        assert {path.parts[0] for path in inside} <= {package, "README.md"}


def test_packages_are_typed(root: Path) -> None:
    for source_root, package in PACKAGES.items():
        assert (root / source_root / package / "__init__.py").is_file()
        assert (root / source_root / package / "py.typed").is_file()


def test_no_file_has_a_vague_name(python_files: list[Path]) -> None:
    assert [path for path in python_files if path.name in VAGUE_NAMES] == []


def test_nothing_of_ours_is_called_kernels(root: Path) -> None:
    code = (
        "import importlib.util as util\n"
        "spec = util.find_spec('kernels')\n"
        "print(spec.origin if spec and spec.origin else '')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    origin = found.stdout.strip()
    assert origin == "" or "site-packages" in origin


def test_no_module_is_outside_the_roots(
    root: Path, files: list[Path], python_files: list[Path]
) -> None:
    outside = {path for path in files if path.suffix == ".py"} - set(python_files)
    assert sorted(path.relative_to(root).as_posix() for path in outside) == []
