from dataclasses import replace

import pytest
import torch

from trimodal.bench import curves, synthetic
from trimodal.bench.curves import curves_row, small
from trimodal.config import RunConfig

CPU = torch.device("cpu")


def test_kernels_and_reference_learn_alike(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "SPEECH", (4, 20))
    monkeypatch.setattr(synthetic, "SIDES", (2, 4))
    training = replace(config.training, learning_rate=1e-2)
    row, found = curves_row(replace(config, training=training), CPU, steps=20, samples=6)
    assert row.passes
    assert found["auto"] != found["reference"], "two implementations, not one twice"
    assert len(found["auto"]) == 20
    assert row.ours < 1e-3


@pytest.mark.parametrize(
    ("ours", "theirs", "ratio"),
    [
        ([8.0] * 16, [8.0] * 16, 0.0),
        ([float(20 - i) for i in range(16)], [1.1 * (20 - i) for i in range(16)], 0.11),
        ([float(20 - i) for i in range(16)], [20.0 - i for i in range(16)], 1e3),
    ],
    ids=["nothing-learnt", "apart", "same"],
)
def test_a_row_fails_where_curves_part_or_nothing_is_learnt(
    config: RunConfig,
    ours: list[float],
    theirs: list[float],
    ratio: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(curves, "curve", lambda _c, _d, way, *_: ours if way == "auto" else theirs)
    row, _ = curves_row(config, CPU)
    assert row.ratio == pytest.approx(ratio, rel=0.01)
    assert row.passes == (ratio >= 1)


def test_a_large_model_is_made_small_and_exact(config: RunConfig) -> None:
    made = small(config)
    assert made.model.trunk.width == made.model.embedding_dim == 256
    assert made.training.precision == "fp32"
    assert made.objectives == config.objectives
