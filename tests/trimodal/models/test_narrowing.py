from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trimodal
from trimodal.errors import ConfigError
from trimodal.models import TrimodalModel
from trimodal.models.narrowing import narrow


def kept(module: nn.Module) -> int:
    """Bytes of its parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


@pytest.mark.parametrize(("weights", "steps"), [("bf16", 2.0**8), ("int8", 254.0)])
@pytest.mark.parametrize(
    ("kind", "sizes"), [(nn.Linear, (24, 16)), (nn.Conv1d, (8, 16, 3)), (nn.Conv2d, (8, 16, 3))]
)
def test_a_weight_is_off_by_half_a_step_at_most(
    kind: type[nn.Linear | nn.Conv1d | nn.Conv2d], sizes: Any, weights: str, steps: float
) -> None:
    layer = kind(*sizes)
    before: Tensor = layer.weight.detach().clone()
    narrow(nn.Sequential(layer), weights)
    found: Tensor = layer.weight
    largest = before.abs().flatten(1).amax(1).view(-1, *[1] * (before.ndim - 1))
    assert found.dtype == torch.float32
    assert not torch.equal(found, before)
    assert ((found - before).abs() <= largest / steps * (1 + 1e-5)).all()


def test_a_channel_of_zeros_stays_one() -> None:
    layer = nn.Linear(8, 4)
    nn.init.zeros_(layer.weight)
    narrow(layer, "int8")
    assert torch.equal(layer.weight, torch.zeros(4, 8))


@pytest.mark.parametrize(("weights", "share"), [("bf16", 0.5), ("int8", 0.25)])
def test_memory_shrinks(weights: str, share: float) -> None:
    layer = nn.Linear(1024, 512, bias=False)
    before = kept(layer)
    narrow(layer, weights)
    assert kept(layer) == pytest.approx(before * share, rel=0.01)


@pytest.mark.parametrize(
    ("weights", "least"), [("fp32", 1 - 1e-6), ("bf16", 0.9999), ("int8", 0.999)]
)
def test_a_loaded_model_embeds_nearly_the_same(
    model: TrimodalModel, media: dict[str, Any], tmp_path: Path, weights: str, least: float
) -> None:
    model.save_pretrained(tmp_path)
    expected = trimodal.load(tmp_path).embed(**media)["fused"]
    found = trimodal.load(tmp_path, weights=weights).embed(**media)["fused"]
    assert ((expected * found).sum(1) >= least).all()
    assert (weights == "fp32") == bool((expected == found).all())


def test_another_name_is_refused(model: TrimodalModel) -> None:
    with pytest.raises(ConfigError, match="weights: int4 is none of fp32, bf16, int8"):
        narrow(model, "int4")
