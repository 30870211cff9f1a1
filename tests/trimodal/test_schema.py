"""Strict trees: YAML and overrides to dataclasses, and one clear sentence for each mistake."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml

from trimodal.config import RunConfig
from trimodal.errors import ConfigError
from trimodal.schema import (
    Amount,
    Bounds,
    Count,
    Natural,
    Positive,
    Share,
    override,
    parse,
    read_tree,
    to_dict,
)

TREE: dict[str, Any] = {
    "run_dir": "runs/x",
    "data": {"train": ["a.jsonl"], "tokenizer": "t.model"},
    "objectives": {"contrastive": {"weight": 1.0}},
}


@dataclass(frozen=True, kw_only=True)
class Leaf:
    name: str = "leaf"
    share: Share = 0.5


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Every kind of field that a configuration has."""

    count: Count = 1
    natural: Natural = 0
    positive: Positive = 1.0
    amount: Amount = 0.0
    bounded: Annotated[int, Bounds(2, 5)] = 3
    kind: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (0.0, 1.0)
    sizes: tuple[Count, ...] = ()
    weights: Mapping[Literal["a", "b"], Amount] = field(default_factory=dict)
    flag: bool = False
    maybe: int | None = None
    leaf: Leaf = field(default_factory=Leaf)
    other: Leaf | None = None

    def __post_init__(self) -> None:
        if self.count > 100:
            raise ConfigError(f"count: {self.count} is a crowd")


def _write(folder: Path, tree: object = TREE) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def _load(folder: Path, *overrides: str) -> RunConfig:
    return _read(_write(folder), *overrides)


def _read(path: Path, *overrides: str) -> RunConfig:
    return parse(RunConfig, read_tree(path, overrides), "")


@pytest.mark.parametrize(
    ("tree", "name", "value"),
    [
        ({"count": 7}, "count", 7),
        ({"natural": 0}, "natural", 0),
        ({"positive": "1e-4"}, "positive", 1e-4),
        ({"amount": 3}, "amount", 3.0),
        ({"bounded": 5}, "bounded", 5),
        ({"kind": "b"}, "kind", "b"),
        ({"pair": [1, 2.5]}, "pair", (1.0, 2.5)),
        ({"sizes": [1, 2, 3]}, "sizes", (1, 2, 3)),
        ({"weights": {"b": 2}}, "weights", {"b": 2.0}),
        ({"weights": {}}, "weights", {}),
        ({"flag": True}, "flag", True),
        ({"maybe": None}, "maybe", None),
        ({"maybe": 4}, "maybe", 4),
        ({"leaf": {"share": 1}}, "leaf", Leaf(share=1.0)),
        ({"other": {}}, "other", Leaf()),
        ({"other": None}, "other", None),
    ],
    ids=str,
)
def test_a_value_of_each_kind(tree: dict[str, Any], name: str, value: object) -> None:
    found = getattr(parse(Tree, tree, ""), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"count": 0}, "top.count: must be at least 1, got 0"),
        ({"natural": -1}, "top.natural: must be at least 0, got -1"),
        ({"positive": 0}, "top.positive: must be above 0, got 0.0"),
        ({"amount": -0.5}, "top.amount: must be at least 0, got -0.5"),
        ({"bounded": 6}, "top.bounded: 6 is not in [2, 5]"),
        ({"bounded": 1}, "top.bounded: 1 is not in [2, 5]"),
        ({"kind": "c"}, "top.kind: 'c' is not one of a, b"),
        ({"pair": [1]}, "top.pair: expected 2 values, got 1"),
        ({"sizes": [3, 0]}, "top.sizes[1]: must be at least 1, got 0"),
        ({"weights": {"c": 1}}, "top.weights.c: no such key; the keys are a, b"),
        ({"weights": {"a": -1}}, "top.weights.a: must be at least 0, got -1.0"),
        ({"weights": [1]}, "top.weights: expected keys, got [1]"),
        ({"flag": 1}, "top.flag: expected bool, got 1"),
        ({"maybe": "x"}, "top.maybe: expected int, got 'x'"),
        ({"leaf": {"share": 2}}, "top.leaf.share: 2.0 is not in [0, 1]"),
        ({"other": {"nam": "x"}}, "top.other.nam: no such key, did you mean name?"),
        ({"leaf": None}, "top.leaf: expected keys, got None"),
        ({"count": 101}, "top: count: 101 is a crowd"),
        ([1], "top: expected keys, got [1]"),
    ],
    ids=str,
)
def test_a_value_that_is_none_of_its_kind(tree: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Tree, tree, "top")
    assert str(caught.value) == message


def test_plain_values_read_back_equal() -> None:
    config = Tree(sizes=(3, 4), other=Leaf(name="x"))
    tree = to_dict(config)
    assert tree["sizes"] == [3, 4]
    assert tree["other"] == {"name": "x", "share": 0.5}
    assert parse(Tree, tree, "") == config
    assert parse(Tree, yaml.safe_load(yaml.safe_dump(tree)), "") == config


def test_an_override_makes_the_keys_above_it() -> None:
    tree: dict[str, Any] = {"a": {"b": 1}}
    override(tree, "a.c.d=[1, two]")
    override(tree, "a.b=")
    assert tree == {"a": {"b": None, "c": {"d": [1, "two"]}}}


def test_an_override_does_not_reach_what_an_anchor_repeats(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        yaml.safe_dump(TREE)
        + "model: {vision: &tower {width: 64, depth: 2}, text: *tower, speech: {<<: *tower}}\n"
    )
    model = _read(path, "model.vision.depth=9").model
    assert [model.vision.depth, model.text.depth, model.speech.depth] == [9, 2, 2]
    assert {model.vision.width, model.text.width, model.speech.width} == {64}


def test_the_last_override_wins(tmp_path: Path) -> None:
    assert _load(tmp_path, "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainig.max_steps=1", "trainig: no such key, did you mean training?"),
        ("training.max_step=1", "training.max_step: no such key, did you mean max_steps?"),
        ("model.vision.widht=8", "model.vision.widht: no such key, did you mean width?"),
        ("data.qqqq=8", "data.qqqq: no such key; the keys are train, mixture, tokenizer, "),
        ("training.max_steps=many", "training.max_steps: expected int, got 'many'"),
        ("training.max_steps=1.5", "training.max_steps: expected int, got 1.5"),
        ("training.max_steps=true", "training.max_steps: expected int, got True"),
        ("training.max_steps=", "training.max_steps: expected int, got None"),
        ("training.learning_rate=fast", "training.learning_rate: expected float, got 'fast'"),
        ("training.learning_rate=true", "training.learning_rate: expected float, got True"),
        ("training.compile=1", "training.compile: expected bool, got 1"),
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


@pytest.mark.parametrize("missing", ["run_dir", "data", "objectives"])
def test_a_missing_key_is_named(tmp_path: Path, missing: str) -> None:
    tree = {key: value for key, value in TREE.items() if key != missing}
    with pytest.raises(ConfigError, match=f"^{missing}: missing$"):
        _read(_write(tmp_path, tree))


def test_a_missing_key_further_down_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data.tokenizer: missing$"):
        _read(_write(tmp_path, {**TREE, "data": {"train": ["a.jsonl"]}}))


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
        _read(path)
    assert str(caught.value).startswith(f"{path}: {cause}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read"):
        _read(tmp_path / "nowhere.yaml")


def test_a_mistake_ends_with_the_code_of_a_configuration() -> None:
    assert ConfigError.exit_code == 64
