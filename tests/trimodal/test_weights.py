from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trimodal.errors import StorageError
from trimodal.weights import check_weights, read_weights


def stored(path: Path, **weights: torch.Tensor) -> Path:
    save_file(weights, path)
    return path


@pytest.fixture
def module() -> nn.Linear:
    return nn.Linear(3, 2)


def test_what_fits_is_read(tmp_path: Path, module: nn.Linear) -> None:
    path = stored(tmp_path / "w", weight=torch.ones(2, 3), bias=torch.full((2,), 5.0))
    check_weights(path, module)
    read_weights(module, path)
    assert module.weight.eq(1).all()
    assert module.bias.tolist() == [5.0, 5.0]


@pytest.mark.parametrize(
    ("weights", "cause"),
    [
        ({"weight": torch.ones(2, 3)}, "bias is missing, expected"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, r"weight is \[3, 2\], expected"),
        (
            {"weight": torch.ones(2, 3), "bias": torch.ones(2), "more": torch.ones(1)},
            r"more is \[1\], expected none",
        ),
        (
            {"weight": torch.ones(2, 3), "bias": torch.ones(2, dtype=torch.int64)},
            "bias has values of type I64",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, module: nn.Linear, weights: dict[str, torch.Tensor], cause: str
) -> None:
    with pytest.raises(StorageError, match=cause):
        check_weights(stored(tmp_path / "w", **weights), module)


def test_a_damaged_file_is_named(tmp_path: Path, module: nn.Linear) -> None:
    path = stored(tmp_path / "w", weight=torch.ones(2, 3), bias=torch.ones(2))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(StorageError, match="w is damaged"):
        check_weights(path, module)
    with pytest.raises(StorageError, match="w is damaged"):
        read_weights(module, path)


def test_a_module_without_memory_is_compared_too(tmp_path: Path) -> None:
    with torch.device("meta"):
        empty = nn.BatchNorm1d(2)
    weights = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), torch.ones(2))
    weights = {name: value.clone() for name, value in weights.items()}
    counted = {"num_batches_tracked": torch.tensor(3)}
    check_weights(stored(tmp_path / "w", **weights, **counted), empty)
    with pytest.raises(StorageError, match="num_batches_tracked is missing"):
        check_weights(stored(tmp_path / "v", **weights), empty)
