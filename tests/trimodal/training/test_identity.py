"""Which keys a resumed run may change; a new key of the configuration has to be put somewhere."""

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trimodal.config import AverageConfig, CausalConfig, MaskedConfig, RunConfig
from trimodal.errors import ConfigError
from trimodal.schema import flat, parse, to_dict
from trimodal.training import trainer
from trimodal.training.checkpoint import load_newest
from trimodal.training.identity import FIXED, FREE, check_identity, differences, identity
from trimodal.training.trainer import train


def _keys(cls: type, prefix: str = "") -> Iterator[str]:
    """Every key that a configuration can have, those of optional parts too."""
    for name, hint in typing.get_type_hints(cls).items():
        parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        inner = [part for part in parts if dataclasses.is_dataclass(part)]
        if inner:
            yield from _keys(typing.cast(type, inner[0]), f"{prefix}{name}.")
        else:
            yield prefix + name


KEYS = sorted(_keys(RunConfig))


def _is_fixed(key: str) -> bool:
    return any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_either_free_or_fixed(key: str) -> None:
    assert (key in FREE) != _is_fixed(key), f"{key}: put it into FREE or FIXED"


def test_the_tables_name_no_key_that_is_gone() -> None:
    assert sorted(key for key in FREE if key not in KEYS) == []
    gone = [f for f in FIXED if not any(k == f or k.startswith(f"{f}.") for k in KEYS)]
    assert gone == []


def test_what_is_fixed_is_compared_and_what_is_free_is_not(config: RunConfig) -> None:
    found = identity(config, "x")
    assert found["data"] == "x"
    assert not FREE & found.keys()
    assert {"seed", "training.learning_rate", "model.trunk.depth"} <= found.keys()
    assert all(key == "data" or _is_fixed(key) for key in found)


def test_what_changed_is_named(config: RunConfig, tmp_path: Path) -> None:
    before = identity(config, "x")
    after = identity(config, "y") | {"model.trunk.depth": 9}
    with pytest.raises(ConfigError, match=r"data was x, is y; model\.trunk\.depth was 2, is 9"):
        check_identity(before, after, tmp_path)
    check_identity(before, identity(config, "x"), tmp_path)


@pytest.mark.parametrize("masked", [None, MaskedConfig(rate=0.1)])
def test_an_objective_that_comes_or_goes_is_another_run(
    config: RunConfig, masked: Any, tmp_path: Path
) -> None:
    before = identity(config, "x")
    other = replace(config, objectives=replace(config.objectives, masked=masked))
    for one, two in ((before, identity(other, "x")), (identity(other, "x"), before)):
        with pytest.raises(ConfigError, match=r"objectives\.masked"):
            check_identity(one, two, tmp_path)


def test_a_key_that_is_newer_than_the_checkpoint_is_not_asked_about(
    config: RunConfig, tmp_path: Path
) -> None:
    before = identity(config, "x")
    del before["training.spike"]
    check_identity(before, identity(config, "x"), tmp_path)


def test_a_newer_key_had_its_default(config: RunConfig, tmp_path: Path) -> None:
    before = {k: v for k, v in identity(config, "x").items() if not k.startswith("training.ema")}
    other = replace(config, training=replace(config.training, ema=AverageConfig(decay=0.5)))
    with pytest.raises(ConfigError, match=r"training\.ema was None, is something else"):
        check_identity(before, identity(other, "x"), tmp_path)
    kept = identity(other, "x")
    check_identity(kept, kept, tmp_path)


Change = Callable[[RunConfig], RunConfig]


def trained(**changes: Any) -> Change:
    return lambda config: replace(config, training=replace(config.training, **changes))


def asked(**conditions: float) -> Change:
    def change(config: RunConfig) -> RunConfig:
        causal = CausalConfig(conditions=typing.cast(Any, conditions))
        return replace(config, objectives=replace(config.objectives, causal=causal))

    return change


def former(found: dict[str, Any]) -> dict[str, Any]:
    """An identity as checkpoints had it when each entry of a mapping was a key of its own."""
    return json.loads(json.dumps(flat(found)))


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        (trained(layer_decay={"text": 0.5}), trained(layer_decay={"text": 0.5, "vision": 0.5}), ""),
        (trained(layer_decay={"text": 0.5, "vision": 0.5}), trained(layer_decay={"text": 0.5}), ""),
        (trained(learning_rate_scale={}), trained(learning_rate_scale={"text": 0.5}), ""),
        (
            trained(frozen=("text",), start_from={"text": "a"}),
            trained(frozen=("text",), start_from={"text": "a"}, unlocked={"text": 1}),
            "training.unlocked",
        ),
        (asked(image=1.0), asked(image=1.0, text=2.0), "objectives.causal.conditions"),
    ],
)
def test_an_entry_that_comes_or_goes_is_another_run(
    config: RunConfig, tmp_path: Path, before: Change, after: Change, key: str
) -> None:
    one, two = (identity(change(config), "x") for change in (before, after))
    for saved in (one, former(one)):
        check_identity(saved, one, tmp_path)
        with pytest.raises(ConfigError, match=key or r"training\.l.* was \{.*\}, is \{.*\}\. Use"):
            check_identity(saved, two, tmp_path)


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("data.speech_augment.noise", 0.75),
        ("model.trunk.dropout", 0.25),
        ("objectives.contrastive.fused", 0.75),
        ("objectives.causal", {"rate": 0.5}),
        ("training.layer_decay", {"text": 0.5}),
    ],
)
def test_a_newer_key_of_any_section_had_its_default(
    config: RunConfig, tmp_path: Path, key: str, other: Any
) -> None:
    tree = to_dict(config)
    for section in ("data", "model", "training"):
        del tree[section]
    tree |= {"data": {"train": ["a"], "tokenizer": "b"}}
    whole = identity(parse(RunConfig, tree, ""), "x")
    before = {k: v for k, v in former(whole).items() if not k.startswith(key)}
    check_identity(before, whole, tmp_path)
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
    node[leaf] = other
    with pytest.raises(ConfigError, match=rf"{key} was "):
        check_identity(before, identity(parse(RunConfig, tree, ""), "x"), tmp_path)


def test_where_weights_come_from_may_change(config: RunConfig, tmp_path: Path) -> None:
    other = replace(config, training=replace(config.training, start_from={"vision": "runs/a"}))
    assert identity(other, "x").keys() == identity(config, "x").keys()
    frozen = replace(other, training=replace(other.training, frozen=("vision",)))
    with pytest.raises(ConfigError, match=r"training\.frozen was \[\], is \['vision'\]"):
        check_identity(identity(config, "x"), identity(frozen, "x"), tmp_path)


def test_more_steps_are_another_schedule(
    finished: RunConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = load_newest(Path(finished.run_dir) / "checkpoints")
    assert saved is not None
    former = {key: value for key, value in saved.state.items() if key != "max_steps"}
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "load_newest", lambda *_: replace(saved, state=former))
        train(replace(finished, training=replace(finished.training, max_steps=7)))
    assert "schedule" not in capsys.readouterr().err, "a checkpoint of before does not know"
    for _ in range(2):
        train(replace(finished, training=replace(finished.training, max_steps=8)))
    assert capsys.readouterr().err == (
        "trimodal: the learning rate follows a schedule of 8 steps from here on; it was 7\n"
    )


def test_trees_are_compared_by_their_leaves() -> None:
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == "a.b was 1, is 3"
    assert differences({"a": {}}, {"a": {}}) == ""
