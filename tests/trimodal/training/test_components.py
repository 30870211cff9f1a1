from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import trimodal
from trimodal.config import RunConfig, TrainingConfig, TransformerConfig
from trimodal.errors import ConfigError
from trimodal.models import TrimodalModel
from trimodal.models.layers import Block
from trimodal.testing import tiny_model
from trimodal.training.components import depths, lock, place, rate_scale
from trimodal.training.optimizer import build_optimizer, set_rate
from trimodal.training.trainer import train

DEPTHS: Any = {"vision": 3, "text": 1, "speech": 1, "trunk": 2}


@pytest.mark.parametrize(
    ("name", "component", "below"),
    [
        ("encoders.0.frontend.projection.weight", "vision", 4),
        ("encoders.0.transformer.blocks.0.attention.q_proj.weight", "vision", 3),
        ("encoders.0.transformer.blocks.2.mlp_norm.weight", "vision", 1),
        ("encoders.0.transformer.norm.weight", "vision", 0),
        ("encoders.0.embedding.projection.weight", "vision", 0),
        ("encoders.0.to_trunk.weight", "trunk", 3),
        ("encoders.2.summary.weight", "trunk", 3),
        ("encoders.1.frontend.table.weight", "text", 2),
        ("encoders.2.frontend.mask", "speech", 2),
        ("modality_embedding.weight", "trunk", 3),
        ("trunk.blocks.1.mlp.up_proj.weight", "trunk", 1),
        ("trunk.norm.weight", "trunk", 0),
        ("fusion.projection.weight", "trunk", 0),
        ("prediction_head.cells.vision.weight", "heads", 0),
        ("matching_head.bias", "heads", 0),
        ("logit_scale", "heads", 0),
    ],
)
def test_where_parameters_stand(name: str, component: str, below: int) -> None:
    assert place(name, DEPTHS) == (component, below)


def test_every_parameter_has_a_place() -> None:
    model = tiny_model()
    blocks = depths(model)
    assert blocks == {"vision": 1, "text": 1, "speech": 1, "trunk": 2}
    found = {name: place(name, blocks) for name in model.state_dict()}
    assert {p.component for p in found.values()} == {"vision", "text", "speech", "trunk", "heads"}
    assert all(0 <= p.below <= blocks.get(p.component, 0) + 1 for p in found.values())


def test_rates_fall_from_layer_to_layer() -> None:
    config = TrainingConfig(layer_decay={"vision": 0.5}, learning_rate_scale={"vision": 0.1})
    rates = [
        rate_scale(place(f"encoders.0.{name}.weight", DEPTHS), config)
        for name in ("transformer.norm", "transformer.blocks.2.mlp_norm", "frontend.projection")
    ]
    assert rates == [0.1, 0.1 * 0.5, 0.1 * 0.5**4]
    assert rate_scale(place("trunk.norm.weight", DEPTHS), config) == 1.0


def test_the_optimizer_takes_the_rates() -> None:
    model = tiny_model()
    config = TrainingConfig(
        layer_decay={"trunk": 0.5}, learning_rate_scale={"speech": 0.25}, weight_decay=0.3
    )
    optimizer = build_optimizer(model, config)
    set_rate(optimizer, 2.0)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    named = dict(model.named_parameters())
    assert rates[id(named["trunk.blocks.0.mlp.up_proj.weight"])] == 2.0 * 0.25
    assert rates[id(named["modality_embedding.weight"])] == 2.0 * 0.125
    assert rates[id(named["encoders.2.frontend.mask"])] == 2.0 * 0.25
    assert rates[id(named["encoders.0.frontend.mask"])] == 2.0
    assert len(rates) == len(named)
    assert all((decays[id(p)] > 0) is (p.ndim >= 2) for p in named.values())


def locked(**settings: Any) -> tuple[TrimodalModel, set[str]]:
    model = tiny_model()
    lock(model, TrainingConfig(init_from="anywhere", **settings))
    return model, {name for name, p in model.named_parameters() if not p.requires_grad}


def test_a_frozen_tower_takes_no_gradients() -> None:
    _, frozen = locked(frozen=("vision",))
    assert frozen
    assert all(name.startswith("encoders.0.") for name in frozen)
    assert "encoders.0.embedding.projection.weight" in frozen
    assert "encoders.0.to_trunk.weight" not in frozen


def test_the_last_layers_can_be_unlocked() -> None:
    _, all_of_it = locked(frozen=("vision",))
    _, but_one = locked(frozen=("vision",), unlocked={"vision": 1})
    _, but_two = locked(frozen=("vision",), unlocked={"vision": 2})
    assert all_of_it - but_one == {
        "encoders.0.transformer.norm.weight",
        "encoders.0.embedding.projection.weight",
    }
    assert all("blocks.0" in name for name in but_one - but_two)
    assert all("frontend" in name for name in but_two)


def test_frozen_blocks_drop_nothing_out() -> None:
    model = tiny_model()
    for block in (m for m in model.modules() if isinstance(m, Block)):
        block.dropout = 0.1
    lock(model, TrainingConfig(frozen=("speech", "trunk"), init_from="anywhere"))
    found = {n: m.dropout for n, m in model.named_modules() if isinstance(m, Block)}
    assert found == {
        "encoders.0.transformer.blocks.0": 0.1,
        "encoders.1.transformer.blocks.0": 0.1,
        "encoders.2.transformer.blocks.0": 0.0,
        "trunk.blocks.0": 0.0,
        "trunk.blocks.1": 0.0,
    }


def test_something_has_to_be_trained() -> None:
    with pytest.raises(ConfigError, match=r"training\.frozen: nothing is left to train"):
        locked(frozen=("vision", "text", "speech", "trunk", "heads"))


def with_training(config: RunConfig, folder: Path, **changes: Any) -> RunConfig:
    return replace(config, run_dir=str(folder), training=replace(config.training, **changes))


def test_a_locked_tower_stays_as_it_was_and_costs_nothing(
    everything: RunConfig, tmp_path: Path
) -> None:
    """Locked-image tuning: the tower of a trained model, everything else anew."""
    stacks = {"trunk": TransformerConfig(width=32, depth=1, num_heads=2, dropout=0.1)}
    train(with_training(everything, tmp_path / "first", max_steps=2))
    first = tmp_path / "first" / "model"
    config = replace(everything, model=replace(everything.model, **stacks))
    config = with_training(
        config,
        tmp_path / "second",
        start_from={"vision": str(first)},
        frozen=("vision",),
        weight_decay=0.5,
    )
    train(config)
    before, after = trimodal.load(first), trimodal.load(tmp_path / "second" / "model")
    old, new = before.state_dict(), after.state_dict()
    vision = {n for n in old if place(n, depths(after)).component == "vision"}
    assert vision
    assert all(torch.equal(old[name], new[name]) for name in vision)
    changed = [n for n in new if n not in vision and n in old and old[n].shape == new[n].shape]
    assert all(not torch.equal(old[n], new[n]) for n in changed if "up_proj" in n)
    folder = tmp_path / "second" / "checkpoints" / "step-00000006"
    held = {key.split("::")[0] for key in load_file(folder / "optimizer.safetensors")}
    assert held == new.keys() - vision
    picture = Path(everything.data.train[0]).parent / "train-0.png"
    vectors = [model.embed(image=[str(picture)])["image"] for model in (before, after)]
    assert (vectors[0] == vectors[1]).all()


def test_a_locked_run_goes_on_as_it_would_have(everything: RunConfig, tmp_path: Path) -> None:
    train(with_training(everything, tmp_path / "first", max_steps=2))
    recipe: dict[str, Any] = {
        "init_from": str(tmp_path / "first" / "model"),
        "frozen": ("text",),
        "unlocked": {"text": 1},
        "layer_decay": {"vision": 0.7, "trunk": 0.9},
    }
    whole = with_training(everything, tmp_path / "whole", **recipe)
    train(whole)
    parts = with_training(everything, tmp_path / "parts", **recipe)
    train(parts)
    for path in (tmp_path / "parts" / "checkpoints" / "step-00000006").iterdir():
        path.unlink()
    (tmp_path / "parts" / "checkpoints" / "step-00000006").rmdir()
    train(parts)
    one, two = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "parts"))
    assert one.read_bytes() == two.read_bytes()
