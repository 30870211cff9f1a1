"""The names that users rely on; a change here belongs in CHANGELOG.md."""

import importlib
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import trimodal
import trimodal_kernels
import trimodal_serving
from trimodal.cli import Command

NAMES = [
    "TrimodalConfig",
    "TrimodalError",
    "TrimodalModel",
    "TrimodalProcessor",
    "__version__",
    "finetune",
    "load",
]
COMMANDS = [
    "batch",
    "bench",
    "data",
    "embed",
    "eval",
    "export",
    "finetune",
    "generate",
    "judge",
    "keys",
    "report",
    "runs",
    "serve",
    "tokenizer",
    "train",
]


def test_public_names_are_frozen() -> None:
    assert sorted(trimodal.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_public_name_can_be_imported(name: str) -> None:
    assert getattr(trimodal, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'trimodal' has no attribute 'lode'"):
        getattr(trimodal, "lode")  # noqa: B009


@pytest.mark.parametrize("package", [trimodal_kernels, trimodal_serving], ids=lambda p: p.__name__)
def test_the_other_packages_list_what_they_export(package: object) -> None:
    names = getattr(package, "__all__", [])
    assert [name for name in names if not hasattr(package, name)] == []


def test_commands_are_frozen(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(project["entry-points"]["trimodal.commands"]) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_where_the_package_says(root: Path, name: str) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, attribute = project["entry-points"]["trimodal.commands"][name].split(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, Command)
    assert command.name == name
    assert command.help


def test_the_installed_package_is_this_one() -> None:
    assert sorted(entry.name for entry in entry_points(group="trimodal.commands")) == COMMANDS
