"""What needs no second rank; two and four are in `tests/faults/test_worlds.py`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import save_file
from torch import nn
from torch.distributed.tensor import DTensor

from trimodal.config import MatchingConfig, RunConfig, TrainingConfig
from trimodal.errors import ConfigError, StorageError
from trimodal.models import TrimodalModel
from trimodal.testing import tiny_model
from trimodal.training.gradients import StepGradients
from trimodal.training.optimizer import build_optimizer
from trimodal.training.parts import Parts
from trimodal.training.sharding import gathered, is_sharded, own, prepare, restore_weights, whole


def test_every_parameter_is_spread(sharding: Accelerator) -> None:
    model = prepare(sharding, tiny_model())
    assert is_sharded(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())


def test_muon_needs_whole_matrices(sharding: Accelerator) -> None:
    model = prepare(sharding, tiny_model())
    with pytest.raises(ConfigError, match="muon cannot be used with FSDP"):
        build_optimizer(model, TrainingConfig(optimizer="muon"))


def test_ranks_without_tuples_gather_as_often(sharding: Accelerator, everything: RunConfig) -> None:
    """With matching, and where parameters are spread, alone; two ranks are tried elsewhere."""
    model = cast(TrimodalModel, prepare(sharding, tiny_model()))
    for matching, shows in (
        (None, False),
        (MatchingConfig(weight=0.0), False),
        (MatchingConfig(), True),
    ):
        objectives = replace(everything.objectives, matching=matching)
        StepGradients(sharding, model, replace(everything, objectives=objectives))
        assert model.shows_tuples is shows


def test_what_is_gathered_is_what_was_spread(sharding: Accelerator) -> None:
    before = tiny_model()
    model = cast(TrimodalModel, prepare(sharding, tiny_model()))
    after = gathered(model, main=True)
    assert after is not None
    assert not is_sharded(after)
    for name, weight in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], weight)
    text = ["a red square"]
    assert (after.embed(text=text)["text"] == before.embed(text=text)["text"]).all()
    assert gathered(model, main=False) is None


def test_whole_weights_are_read_into_spread_ones(sharding: Accelerator, tmp_path: Path) -> None:
    model = prepare(sharding, tiny_model())
    other = {name: torch.randn_like(x) for name, x in tiny_model().state_dict().items()}
    save_file(other, tmp_path / "model.safetensors")
    restore_weights(model, Parts([tmp_path / "model.safetensors"]))
    for name, x in model.state_dict().items():
        assert torch.equal(whole(x), other[name])
        assert torch.equal(own(x), other[name])


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(StorageError, match="another model, see bias"):
        restore_weights(nn.Linear(1, 1), Parts([tmp_path / "model.safetensors"]))


def test_the_first_version_is_refused(
    sharding: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ConfigError, match="fsdp_version: must be 2"):
        prepare(sharding, tiny_model())


def test_deepspeed_is_refused(sharding: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setattr(sharding.state, "distributed_type", DistributedType.DEEPSPEED)
        with pytest.raises(ConfigError, match="DEEPSPEED is not supported"):
            prepare(sharding, tiny_model())


def test_without_being_asked_nothing_is_spread() -> None:
    assert "ACCELERATE_USE_FSDP" not in os.environ
    model = tiny_model()
    assert gathered(model, main=False) is model
    assert not is_sharded(prepare(Accelerator(), model))
