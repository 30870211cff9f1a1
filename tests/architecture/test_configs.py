"""Every configuration runs as it stands, and says how, on what, how long and with what result."""

import re
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from trimodal.config import load_config
from trimodal.training.tokenizers.config import load_training

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
TOKENIZERS = [path for path in CONFIGS if path.parent.name == "tokenizers"]
LAUNCHES = [path for path in CONFIGS if path.parent.name == "accelerate"]
RUNS = [path for path in CONFIGS if path not in TOKENIZERS + LAUNCHES]
FIELDS = ("Command", "Hardware", "Time", "Expect")


def _header(path: Path) -> dict[str, str]:
    """The `# Field: value` lines above the first key; `#   more` continues a value."""
    fields: dict[str, str] = {}
    last = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        field = re.match(r"# ([A-Z][a-z]+):\s+(.+)", line)
        if field:
            last = field[1]
            fields[last] = field[2]
        elif last:
            fields[last] += " " + line.lstrip("# ")
    return fields


def test_the_demo_has_a_configuration() -> None:
    assert ROOT / "configs" / "demo.yaml" in CONFIGS


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_configuration_is_valid_and_takes_overrides(path: Path) -> None:
    overrides = ["run_dir=elsewhere", "training.max_steps=7", "training.checkpoint_every=3"]
    config = load_config(path, overrides)
    assert config.run_dir == "elsewhere"
    assert (config.training.max_steps, config.training.checkpoint_every) == (7, 3)
    assert load_config(path).run_dir


@pytest.mark.parametrize("path", TOKENIZERS, ids=lambda path: path.name)
def test_configuration_of_a_tokenizer_is_valid_and_takes_overrides(path: Path) -> None:
    what = path.stem.rpartition("_")[2]
    config = load_training(what, path, ["training.max_steps=7", "training.checkpoint_every=3"])
    assert (config.training.max_steps, config.training.checkpoint_every) == (7, 3)
    assert f"trimodal tokenizer train {what} " in _header(path)["Command"]


@pytest.mark.parametrize("path", LAUNCHES, ids=lambda path: path.name)
def test_accelerate_takes_what_is_launched_by(path: Path) -> None:
    assert path.relative_to(ROOT).as_posix() in _header(path)["Command"]
    command = ["--config_file", str(path), "-m", "trimodal.train", "run.yaml"]
    options, *_ = _validate_launch_command(launch_command_parser().parse_args(command))
    environment = prepare_multi_gpu_env(options)
    asked = [environment.get(key) for key in ("ACCELERATE_USE_FSDP", "FSDP_VERSION")]
    assert asked == (["true", "2"] if path.stem == "fsdp" else [None, None])
    assert options.use_cpu == (path.stem == "cpu")
    assert options.num_processes == (8 if path.stem in ("ddp", "fsdp") else 1)


@pytest.mark.parametrize("path", RUNS + TOKENIZERS, ids=lambda path: path.name)
def test_configuration_says_what_to_expect(path: Path) -> None:
    header = _header(path)
    assert [field for field in FIELDS if not header.get(field)] == []
    assert path.relative_to(ROOT).as_posix() in header["Command"]
    if header["Time"] == header["Expect"] == "not yet run":
        return
    assert re.search(r"\d", header["Time"]), "a time without a number says nothing"
    assert re.search(r"\d", header["Expect"]), "an expectation without a number cannot be missed"
