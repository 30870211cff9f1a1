import torch
from torch import nn

from trimodal.config import TrainingConfig
from trimodal.training.optimizer import build_optimizer, learning_rate


def test_norms_and_biases_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.RMSNorm(3), nn.Embedding(4, 3))
    optimizer = build_optimizer(model, TrainingConfig(weight_decay=0.3))
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    found = {name: decay[id(p)] for name, p in model.named_parameters()}
    assert found == {"0.weight": 0.3, "0.bias": 0.0, "1.weight": 0.0, "2.weight": 0.3}


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(3, 3)
    model.bias.requires_grad_(False)
    optimizer = build_optimizer(model, TrainingConfig())
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 1


def test_the_rate_warms_up_then_falls_as_a_cosine() -> None:
    config = TrainingConfig(
        max_steps=110, warmup_steps=10, learning_rate=1.0, min_learning_rate=0.1
    )
    rates = torch.tensor([learning_rate(step, config) for step in range(110)])
    assert torch.allclose(rates[:10], torch.arange(1, 11) / 10)
    assert (rates[10:].diff() < 0).all()
    assert abs(float(rates[60]) - 0.55) < 1e-6
    assert 0.1 <= float(rates[-1]) < 0.101


def test_a_run_shorter_than_the_warm_up_still_reaches_the_peak() -> None:
    config = TrainingConfig(max_steps=4, warmup_steps=100, learning_rate=1.0)
    assert [learning_rate(step, config) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
