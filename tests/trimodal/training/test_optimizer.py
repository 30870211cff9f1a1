from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from trimodal.config import RunConfig, TrainingConfig
from trimodal.testing import assert_close, tiny_model
from trimodal.training.optimizer import build_optimizer, learning_rate, set_rate
from trimodal.training.trainer import train


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


def stepped(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
        )
    optimizer.step()


def test_muon_takes_the_matrices_within_blocks_and_adamw_the_rest() -> None:
    config = TrainingConfig(optimizer="muon", learning_rate=0.1, weight_decay=0.2)
    model, expected = tiny_model(), tiny_model()
    optimizer = build_optimizer(model, config)
    set_rate(optimizer, 0.01)
    named = dict(expected.named_parameters())
    inside = {n for n, p in named.items() if ".blocks." in n and p.ndim == 2}
    assert {n.rsplit(".", 2)[-2] for n in inside} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip
    muon = torch.optim.Muon(
        [named[n] for n in inside], lr=0.01, weight_decay=0.2, adjust_lr_fn="match_rms_adamw"
    )
    plain = [p for n, p in named.items() if n not in inside and p.ndim < 2]
    others = [p for n, p in named.items() if n not in inside and p.ndim >= 2]
    settings = {"lr": 0.01, "betas": config.betas, "eps": 1e-8}
    adamw = torch.optim.AdamW(
        [{"params": plain, "weight_decay": 0.0}, {"params": others, "weight_decay": 0.2}],
        **settings,
    )
    for _ in range(3):
        stepped(optimizer, model.parameters())
        stepped(muon, expected.parameters())
        adamw.step()
    for name, parameter in model.named_parameters():
        assert_close(parameter, named[name], "exact")
        kept = {"momentum_buffer"} if name in inside else {"step", "exp_avg", "exp_avg_sq"}
        assert optimizer.state[parameter].keys() == kept


def test_muon_goes_on_as_it_would_have(config: RunConfig, tmp_path: Path) -> None:
    config = replace(config, training=replace(config.training, optimizer="muon"))
    train(config)
    other = replace(config, run_dir=str(tmp_path / "other"))
    train(other)
    last = Path(other.run_dir) / "checkpoints" / "step-00000006"
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    train(other)
    one, two = (Path(c.run_dir) / "model" / "model.safetensors" for c in (config, other))
    assert one.read_bytes() == two.read_bytes()
