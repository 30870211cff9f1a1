"""Who may import whom, and what may be imported before it is needed."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "torchvision", "torchaudio", "accelerate", "fastapi")
ROOTS = ("src", "kernels", "serving")


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(root / name) for name in ROOTS)}


def _loaded_by(root: Path, code: str) -> list[str]:
    """The heavy packages that are loaded once `code` has run in a fresh interpreter."""
    report = f"\nimport sys\nprint('loaded', *[m for m in {HEAVY} if sys.modules.get(m)])"
    result = subprocess.run(
        [sys.executable, "-c", code + report],
        cwd=root,
        env=_environment(root),
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()[-1].split()[1:]


def _lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=_environment(root),
        capture_output=True,
        text=True,
        check=False,
    )


def _commands(root: Path) -> list[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(project["entry-points"]["trimodal.commands"])


def test_the_package_loads_nothing_heavy(root: Path) -> None:
    assert _loaded_by(root, "import trimodal") == []


def test_help_loads_nothing_heavy(root: Path) -> None:
    calls = [["--help"], *([command, "--help"] for command in _commands(root))]
    code = (
        "from trimodal.cli import main\n"
        f"for call in {calls}:\n"
        "    try:\n"
        "        main(call)\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0, call\n"
        "    else:\n"
        "        raise AssertionError(call)\n"
    )
    assert _loaded_by(root, code) == []


def test_kernels_and_training_need_no_library_of_media(root: Path) -> None:
    """What `make gpu` runs, on a machine that has PyTorch, transformers and accelerate."""
    code = (
        "import sys\n"
        "absent = 'soundfile torchaudio torchvision sklearn matplotlib tensorboard peft'.split()\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "import trimodal.bench, trimodal.testing, trimodal.training.gradients\n"
    )
    assert _loaded_by(root, code) == ["torch", "transformers", "accelerate"]


def test_import_contracts_hold(root: Path) -> None:
    result = _lint_imports(root)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "planted", "broken"),
    [
        ("src/trimodal/processors/text.py", "import trimodal.models", "layers of trimodal"),
        ("kernels/trimodal_kernels/pooling.py", "import trimodal.errors", "serving above trimodal"),
        ("src/trimodal/models/heads.py", "import accelerate", "accelerate only in"),
    ],
    ids=["layer", "root", "third-party"],
)
def test_a_planted_import_breaks_a_contract(
    root: Path, tmp_path: Path, module: str, planted: str, broken: str
) -> None:
    for name in ROOTS:
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{planted}\n")
    result = _lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    verdicts = [line for line in result.stdout.splitlines() if "BROKEN" in line]
    assert any(line.startswith(broken) for line in verdicts)
