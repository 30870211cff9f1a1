"""Every configuration runs as it stands, and says how, on what, how long and with what result."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from trimodal.batch import Modality
from trimodal.config import load_config
from trimodal.processors.codes import CodeProcessor
from trimodal.tokenizers import Tokenizers
from trimodal.tokenizers.speech import SpeechTokenizer
from trimodal.tokenizers.vision import VisionTokenizer
from trimodal.tokenizers.vocoder import Vocoder
from trimodal.training.tokenizers.config import TRAININGS, load_training

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
TOKENIZERS = [path for path in CONFIGS if path.parent.name == "tokenizers"]
LAUNCHES = [path for path in CONFIGS if path.parent.name == "accelerate"]
RUNS = [path for path in CONFIGS if path not in TOKENIZERS + LAUNCHES]
TOKENIZED = [path for path in RUNS if load_config(path).data.tokenizers is not None]
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


@pytest.mark.parametrize("path", TOKENIZED, ids=lambda path: path.name)
def test_the_tokenizers_of_a_configuration_fit_it(path: Path) -> None:
    config = load_config(path)
    named = re.search(r"configs/tokenizers/(\w+)_(?:\*|vision)", _header(path)["Command"])
    assert named is not None, "its command says which tokenizers it needs"
    files = {what: ROOT / f"configs/tokenizers/{named[1]}_{what}.yaml" for what in TRAININGS}
    for file in files.values():
        assert f" --out {config.data.tokenizers}/" in _header(file)["Command"]
    trained: dict[str, Any] = {what: load_training(what, file) for what, file in files.items()}
    with torch.device("meta"):
        tokenizers = Tokenizers(
            vision=VisionTokenizer(trained["vision"].tokenizer),
            speech=SpeechTokenizer(trained["speech"].tokenizer),
            vocoder=Vocoder(trained["vocoder"].vocoder),
        )
    codes = CodeProcessor(tokenizers, config.model)
    assert trained["vision"].vision_input.patch_size == config.model.vision_input.patch_size
    for modality, room in (
        (Modality.VISION, config.model.vocabulary.vision),
        (Modality.SPEECH, config.model.vocabulary.speech),
    ):
        assert 0.9 * room < codes.num_codes(modality) <= room


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
