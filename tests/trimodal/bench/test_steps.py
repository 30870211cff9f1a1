from dataclasses import replace

import pytest
import torch

from trimodal.bench import steps
from trimodal.bench.steps import step_rows
from trimodal.config import RunConfig
from trimodal.errors import NumericError
from trimodal.training.probe import Probe

CPU = torch.device("cpu")


@pytest.mark.usefixtures("uncompiled")
def test_a_step_is_compared_with_both_ways_of_padding(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "TOLERANCE", 1e-4)
    monkeypatch.setattr(steps, "BUCKETS", 2)
    monkeypatch.setattr(steps, "UTILISATION", {32: 0.5})
    rows = step_rows(config, CPU, rounds=1, num_samples=4)
    assert [row.gate for row in rows] == [1.8, 1.15, 1.0]
    assert rows[-1].ratio == pytest.approx(rows[-1].ours / 0.5)
    assert 0 < rows[-1].ours < 1


@pytest.mark.usefixtures("uncompiled")
def test_what_differs_is_not_timed(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "TOLERANCE", -1.0)
    with pytest.raises(NumericError, match="the training step: padded SDPA and packed differ"):
        step_rows(config, CPU, rounds=1, num_samples=4)


def test_a_probe_learns(config: RunConfig) -> None:
    from trimodal.bench.synthetic import SyntheticFeed

    training = replace(config.training, learning_rate=3e-3)
    probe = Probe.new(replace(config, training=training), CPU)
    batches = SyntheticFeed(config, 4).batches(0)
    losses = [probe.train(batches) for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]
