"""Configurations: strict YAML, overrides, and one clear sentence for each mistake."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from trimodal.config import (
    MaskedConfig,
    ModelConfig,
    ObjectivesConfig,
    RunConfig,
    TransformerConfig,
    dump_config,
    load_config,
)
from trimodal.errors import ConfigError
from trimodal.schema import parse, to_dict

TREE: dict[str, Any] = {
    "run_dir": "runs/x",
    "data": {"train": ["a.jsonl"], "tokenizer": "t.model"},
    "objectives": {"contrastive": {"weight": 1.0}},
}


def _write(folder: Path, tree: object = TREE) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def _load(folder: Path, *overrides: str) -> RunConfig:
    return load_config(_write(folder), overrides)


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    config = _load(tmp_path)
    assert config.model == ModelConfig()
    assert config.objectives.masked is None
    assert config.data.train == ("a.jsonl",)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.max_steps=200", 200),
        ("training.learning_rate=1e-4", 1e-4),
        ("training.learning_rate=1", 1.0),
        ("training.betas=[0.8, 0.95]", (0.8, 0.95)),
        ("training.precision=bf16", "bf16"),
        ("training.compile=true", True),
        ("training.trackers=[tensorboard, wandb]", ("tensorboard", "wandb")),
        ("model.matryoshka=[64, 128]", (64, 128)),
        ("model.vision.width=128", 128),
        ("data.train=one.jsonl", ("one.jsonl",)),
        ("data.validation=null", None),
        ("data.validation=v.jsonl", "v.jsonl"),
        ("objectives.masked.rate=0.25", 0.25),
        ("objectives.causal.conditions={image: 2, text: 1}", {"image": 2.0, "text": 1.0}),
        ("run_dir=a=b", "a=b"),
    ],
)
def test_an_override_sets_one_value(tmp_path: Path, override: str, value: object) -> None:
    node: Any = _load(tmp_path, override)
    for name in override.partition("=")[0].split("."):
        node = getattr(node, name)
    assert node == value
    assert type(node) is type(value)


def test_an_override_can_switch_an_objective_on(tmp_path: Path) -> None:
    assert _load(tmp_path, "objectives.masked={}").objectives.masked == MaskedConfig()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.text.num_heads=3", "model.text: width 256 is not a multiple of num_heads 3"),
        (
            "model.trunk={width: 24, num_heads: 4}",
            "model.trunk: head size 6 is not a multiple of 4, which axial rotary positions need",
        ),
        ("model.vision.dropout=1", "model.vision: dropout 1.0 is not in [0, 1)"),
        ("model.matryoshka=[256]", "model: matryoshka: 256 is not shorter than embedding_dim 256"),
        ("model.matryoshka=[8, 8]", "model: matryoshka: [8, 8] names a length twice"),
        (
            "model.speech_input.stride=2",
            "speech_input.stride: must be 4, the frontend halves frames twice",
        ),
        ("model.speech_input.window_ms=5", "speech_input.window_ms: must not be shorter"),
        ("objectives.contrastive=null", "objectives: none has a weight above 0"),
        ("objectives.contrastive.weight=0", "objectives: none has a weight above 0"),
        ("training.validate_every=5", "training.validate_every: needs data.validation"),
        ("run_dir=''", "run_dir: names no folder"),
        ("seed=-1", "seed: -1 is not in [0, 4294967295]"),
        ("seed=4294967296", "seed: 4294967296 is not in [0, 4294967295]"),
        (f"seed=0x{'f' * 5000}", "seed: a number of thousands of digits is not in"),
        ("training.max_steps=0", "training.max_steps: must be at least 1, got 0"),
        ("training.batch_size=1", "training.batch_size: must be at least 2, got 1"),
        ("training.keep_checkpoints=0", "training.keep_checkpoints: must be at least 1, got 0"),
        ("training.learning_rate=0", "training.learning_rate: must be above 0, got 0.0"),
        ("training.learning_rate=.nan", "training.learning_rate: expected float, got nan"),
        ("training.learning_rate=1e999", "training.learning_rate: expected float, got inf"),
        ("training.betas=[0.9, 2]", "training.betas[1]: 2.0 is not in [0, 1]"),
        ("objectives.masked.rate=-0.1", "objectives.masked.rate: -0.1 is not in [0, 1]"),
        ("model.vision.num_heads=0", "model.vision.num_heads: must be at least 1, got 0"),
        ("model.vision.depth=-1", "model.vision.depth: -1 is not in [1, 1000]"),
        ("model.vision.depth=1001", "model.vision.depth: 1001 is not in [1, 1000]"),
        ("model.speech_input.num_mels=1025", "model.speech_input.num_mels: 1025 is not in"),
        ("model.speech_input.sample_rate=192001", "model.speech_input.sample_rate: 192001 is not"),
        ("model.speech_input.window_ms=1001", "model.speech_input.window_ms: 1001.0 is not in"),
        ("model.speech_input.window_ms=0", "model.speech_input.window_ms: must be above 0"),
        ("model.speech_input.hop_ms=0.01", "speech_input.hop_ms: 0.01 is shorter than a sample"),
        ("objectives.masked.speech_span=2", "objectives.masked.speech_span: must be at least 3"),
        ("training.betas=[0.9, 1]", "training.betas: 1 would never forget a gradient"),
        (
            "training.min_learning_rate=1",
            "training.min_learning_rate: 1 is above learning_rate 0.0005",
        ),
        (r'run_dir="a\0b"', r"run_dir: 'a\x00b' holds a character that no path can"),
        (r'data.train="\ud800"', r"data.train[0]: '\ud800' holds a character that no path can"),
        ("data.num_workers=-1", "data.num_workers: -1 is not in [0, 64]"),
        ("data.num_workers=65", "data.num_workers: 65 is not in [0, 64]"),
        ("data.train=[]", "data.train: names no manifest"),
        ("objectives.length={}", "objectives.length: needs speech in objectives.target.modalities"),
        (
            "objectives={target: {modalities: [image]}, length: {}}",
            "objectives.length: needs speech in objectives.target.modalities",
        ),
        (
            "objectives.target.modalities=[]",
            "objectives.target: modalities: must name image, speech",
        ),
        (
            "objectives.target.modalities=[image, image]",
            "objectives.target: modalities: must name image, speech or both, each once",
        ),
        ("objectives.target.modalities=[text]", "objectives.target.modalities[0]: "),
        (
            "objectives.target={modalities: [speech]}",
            "data.tokenizers: names no folder; the objectives need the speech tokenizer",
        ),
        (
            "objectives.target={}",
            "data.tokenizers: names no folder; the objectives need the vision tokenizer",
        ),
        (
            "objectives.masked={speech_target: codes}",
            "data.tokenizers: names no folder; the objectives need the speech tokenizer",
        ),
        (
            "objectives.masked={speech_target: best_rq}",
            "model.best_rq_codebooks: must be positive for speech_target best_rq",
        ),
        ("objectives.target.label_smoothing=1", "objectives.target.label_smoothing: 1.0 is not in"),
        ("objectives.causal.drop_condition=2", "objectives.causal.drop_condition: 2.0 is not in"),
        (
            "objectives.causal.conditions={images: 1}",
            "objectives.causal.conditions.images: no such key, did you mean image?",
        ),
        ("model.best_rq_codebooks=65", "model.best_rq_codebooks: 65 is not in [0, 64]"),
        ("model.picture_size=[8]", "model.picture_size: expected 2 values, got 1"),
        ("model.picture_size=[0, 8]", "model.picture_size[0]: must be at least 1, got 0"),
        ("model.spoken_seconds=0", "model.spoken_seconds: must be above 0, got 0.0"),
    ],
)
def test_a_combination_that_cannot_be_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, override)
    assert str(caught.value).startswith(message)


def test_the_resolved_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        "training.learning_rate=1e-5",
        "model.matryoshka=[64, 32]",
        "objectives.masked={speech_span: 4}",
        "run_dir='läufe/一'",
        "data.vision_augment.rotate_degrees=10",
    )
    dump_config(config, tmp_path / "resolved.yaml")
    assert load_config(tmp_path / "resolved.yaml") == config


@pytest.mark.parametrize(
    ("objectives", "needed"),
    [
        ({"contrastive": {}}, ()),
        ({"causal": {}}, ()),
        ({"target": {}}, ("vision", "speech")),
        ({"target": {"modalities": ["image"]}}, ("vision",)),
        ({"target": {"modalities": ["speech"]}, "masked": {}}, ("speech",)),
        ({"target": {"weight": 0.0}, "causal": {}}, ()),
        ({"masked": {}}, ()),
        ({"masked": {"vision_target": "codes"}}, ("vision",)),
        ({"masked": {"speech_target": "codes"}}, ("speech",)),
        ({"masked": {"speech_target": "best_rq"}}, ()),
        ({"masked": {"speech_target": "codes", "weight": 0.0}, "causal": {}}, ()),
    ],
    ids=str,
)
def test_which_tokenizers_the_objectives_need(
    objectives: dict[str, Any], needed: tuple[str, ...]
) -> None:
    assert parse(ObjectivesConfig, objectives, "objectives").tokenized == needed


@pytest.mark.parametrize(
    ("objectives", "learnt"),
    [
        ({"contrastive": {}}, ()),
        ({"causal": {}}, ("text",)),
        ({"target": {}, "length": {}, "causal": {}}, ("image", "speech", "text")),
        ({"target": {"modalities": ["speech", "image"]}, "length": {}}, ("image", "speech")),
        ({"target": {"modalities": ["image"]}, "causal": {}}, ("image", "text")),
        ({"target": {"modalities": ["speech"]}, "length": {}}, ("speech",)),
        ({"target": {}}, ("image",)),
        ({"target": {}, "length": {"weight": 0}}, ("image",)),
        ({"target": {"weight": 0}, "causal": {"weight": 0}, "masked": {}}, ()),
    ],
    ids=str,
)
def test_what_a_model_learns_to_generate(
    objectives: dict[str, Any], learnt: tuple[str, ...]
) -> None:
    """Speech not without its length."""
    assert parse(ObjectivesConfig, objectives, "objectives").generates == learnt


def test_an_objective_of_weight_0_is_no_reason_to_learn() -> None:
    with pytest.raises(ConfigError, match="none has a weight above 0"):
        parse(ObjectivesConfig, {"target": {"weight": 0}, "length": {}}, "objectives")
    for name in ("target", "causal"):
        parse(ObjectivesConfig, {name: {}}, "objectives")


def test_a_model_configuration_reads_back_equal() -> None:
    config = ModelConfig(matryoshka=(8, 64), trunk=TransformerConfig(width=64, num_heads=2))
    tree = to_dict(config)
    assert tree["matryoshka"] == [8, 64]
    assert parse(ModelConfig, tree, "") == config


def test_dimensions_rise_to_the_whole_embedding() -> None:
    assert ModelConfig(embedding_dim=32, matryoshka=(16, 8)).dimensions == (8, 16, 32)


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        _load(tmp_path).seed = 3  # pyright: ignore[reportAttributeAccessIssue]
