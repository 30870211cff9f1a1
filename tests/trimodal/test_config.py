"""Configurations: strict YAML, overrides, and one clear sentence for each mistake."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from trimodal.config import (
    MaskedConfig,
    ModelConfig,
    RunConfig,
    TransformerConfig,
    dump_config,
    load_config,
    parse,
    to_dict,
)
from trimodal.errors import ConfigError

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
        ("training.tensorboard=false", False),
        ("model.matryoshka=[64, 128]", (64, 128)),
        ("model.vision.width=128", 128),
        ("data.train=one.jsonl", ("one.jsonl",)),
        ("data.validation=null", None),
        ("data.validation=v.jsonl", "v.jsonl"),
        ("objectives.masked.rate=0.25", 0.25),
        ("run_dir=a=b", "a=b"),
    ],
)
def test_an_override_sets_one_value(tmp_path: Path, override: str, value: object) -> None:
    node: Any = _load(tmp_path, override)
    for name in override.partition("=")[0].split("."):
        node = getattr(node, name)
    assert node == value
    assert type(node) is type(value)


def test_an_override_does_not_reach_what_an_anchor_repeats(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        yaml.safe_dump(TREE)
        + "model: {vision: &tower {width: 64, depth: 2}, text: *tower, speech: {<<: *tower}}\n"
    )
    model = load_config(path, ["model.vision.depth=9"]).model
    assert [model.vision.depth, model.text.depth, model.speech.depth] == [9, 2, 2]
    assert {model.vision.width, model.text.width, model.speech.width} == {64}


def test_the_last_override_wins(tmp_path: Path) -> None:
    assert _load(tmp_path, "seed=1", "seed=2").seed == 2


def test_an_override_can_switch_an_objective_on(tmp_path: Path) -> None:
    assert _load(tmp_path, "objectives.masked={}").objectives.masked == MaskedConfig()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainig.max_steps=1", "trainig: no such key, did you mean training?"),
        ("training.max_step=1", "training.max_step: no such key, did you mean max_steps?"),
        ("model.vision.widht=8", "model.vision.widht: no such key, did you mean width?"),
        ("data.qqqq=8", "data.qqqq: no such key; the keys are train, tokenizer, validation, "),
        ("training.max_steps=many", "training.max_steps: expected int, got 'many'"),
        ("training.max_steps=1.5", "training.max_steps: expected int, got 1.5"),
        ("training.max_steps=true", "training.max_steps: expected int, got True"),
        ("training.max_steps=", "training.max_steps: expected int, got None"),
        ("training.learning_rate=fast", "training.learning_rate: expected float, got 'fast'"),
        ("training.learning_rate=true", "training.learning_rate: expected float, got True"),
        ("training.tensorboard=1", "training.tensorboard: expected bool, got 1"),
        ("run_dir=3", "run_dir: expected str, got 3"),
        ("training.precision=fp8", "training.precision: 'fp8' is not one of fp32, bf16"),
        ("training.betas=[0.9]", "training.betas: expected 2 values, got 1"),
        ("training.betas=0.9", "training.betas: expected a list, got 0.9"),
        ("model.matryoshka=[8, x]", "model.matryoshka[1]: expected int, got 'x'"),
        ("data.train=[a.jsonl, 3]", "data.train[1]: expected str, got 3"),
        ("model.vision=4", "model.vision: expected keys, got 4"),
        ("seed.x=4", "seed: expected int, got {'x': 4}"),
        ("run_dir.x=4", "run_dir.x: run_dir is a value, it has no keys below it"),
        ("run_dir", "'run_dir' is not of the form key=value"),
        ("=3", "'=3' is not of the form key=value"),
        ("seed=[1", "seed: '[1' is not a YAML value"),
        ("seed={a: 1, a: 2}", "seed: '{a: 1, a: 2}' is not a YAML value: a stands twice"),
        (f"seed={'[' * 2000}", "seed: '[[[[[[[[[[[[...[[[[[[[[[[[[[' is not a YAML value: nested"),
        (f"run_dir=[{'x' * 100}]", "run_dir: expected str, got ['xxxxxxxxxxxx...xxxxxxxxxxxxx']"),
        (f"training.learning_rate=1{'0' * 400}", "training.learning_rate: expected float, got 100"),
        (f"run_dir=0x{'f' * 5000}", "run_dir: expected str, got a number of thousands of digits"),
        ("{x: 1}=1", "{x: 1}: no such key"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, override)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


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
        ("data.num_workers=-1", "data.num_workers: must be at least 0, got -1"),
        ("data.train=[]", "data.train: names no manifest"),
    ],
)
def test_a_combination_that_cannot_be_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, override)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("missing", ["run_dir", "data", "objectives"])
def test_a_missing_key_is_named(tmp_path: Path, missing: str) -> None:
    tree = {key: value for key, value in TREE.items() if key != missing}
    with pytest.raises(ConfigError, match=f"^{missing}: missing$"):
        load_config(_write(tmp_path, tree))


def test_a_missing_key_further_down_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data.tokenizer: missing$"):
        load_config(_write(tmp_path, {**TREE, "data": {"train": ["a.jsonl"]}}))


def _bomb(pattern: str) -> bytes:
    """Ten levels, each of which repeats the one before ten times."""
    lines = ["a0: &a0 {x: 1}"]
    for i in range(10):
        repeated = ", ".join([f"*a{i}"] * 10)
        lines.append(f"a{i + 1}: &a{i + 1} {pattern.format(repeated)}")
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"a: [1", "not YAML: "),
        (b"- a\n- b\n", "holds no keys"),
        (b"", "holds no keys"),
        (b"run_dir: \xff\xfe", "cannot be read: "),
        (b"!!python/object/apply:os.getcwd []", "not YAML: "),
        (b"run_dir: a\nrun_dir: b\n", "not YAML: run_dir stands twice"),
        (b"run_dir: " + b"[" * 3000, "not YAML: nested too deeply"),
        (b"run_dir: &a [*a]", "not YAML: nested too deeply"),
        (b"seed: " + b"9" * 5000, "not YAML: Exceeds the limit"),
        (b"seed: 0b_", "not YAML: invalid literal"),
        (b"seed: !!int x", "not YAML: invalid literal"),
        (b"seed: !!int ''", "not YAML: a value is not what its tag says"),
        (b"seed: !!float x", "not YAML: could not convert"),
        (b"seed: !!bool x", "not YAML: a value is not what its tag says"),
        (b"seed: !!timestamp x", "not YAML: a value is not what its tag says"),
        (b"seed: 1" + b":1" * 200 + b".5", "not YAML: a value is not what its tag says"),
        (b"seed: 2026-13-01", "not YAML: month must be in 1..12"),
        (_bomb("[{}]"), "not YAML: holds more than 10000 values"),
        (_bomb("{{<<: [{}]}}"), "not YAML: holds more than 10000 values"),
        (b"x: [" + b"0, " * 10_000 + b"]", "not YAML: holds more than 10000 values"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_file_that_is_none(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {cause}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_mistake_ends_with_the_code_of_a_configuration() -> None:
    assert ConfigError.exit_code == 64


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
