"""Rows about what packed attention has beside its products: norms and rotations, order, exactness.

rows = fused_rows(torch.device("cuda"), rounds=20)
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trimodal.bench.peers import PEERS, Run, ours
from trimodal.bench.ragged import TOKENS, difference, running
from trimodal.bench.timing import Row, compare, medians
from trimodal.bench.workloads import HEAD_DIM, Problem, draw_lengths
from trimodal.models.layers import EPS, rotary_angles
from trimodal_kernels import packed_attention, turn

RUNS = 100
EXACT_TOKENS = 4_000
"""Few enough for fp64."""
LEAST_EXACT = 1 / 1.5


def fused_rows(device: torch.device, rounds: int, num_tokens: int = TOKENS) -> list[Row]:
    """Normalised and rotated queries and keys, against a compiled program and the best peer."""
    lengths = draw_lengths("shared trunk", num_tokens, 0)
    problem = Problem.draw(lengths, device, torch.bfloat16)
    weights = tuple(torch.rand(2, HEAD_DIM, device=device).add(0.5).unbind(0))
    index_T = torch.cat([torch.arange(n) for n in lengths]).to(device)
    rotary = rotary_angles(index_T[:, None].expand(-1, 2), HEAD_DIM, 10_000.0)
    times = medians(
        {
            "ours": _fused(problem, weights, rotary),
            "turned": _turned(problem, weights, rotary),
            **{name: PEERS[name](problem)[0] for name in running(problem)},
        },
        rounds,
        device,
    )
    best = min((name for name in times if name in PEERS), key=times.__getitem__)
    name = "attention, shared trunk, with QK-norm and RoPE, against a compiled program and"
    return [compare(f"{name} {best}", times["ours"], times["turned"] + times[best], 1.15)]


def _fused(problem: Problem, weights: tuple[Tensor, ...], rotary: tuple[Tensor, Tensor]) -> Run:
    given = [x.clone().requires_grad_() for x in (*problem.inputs, *weights)]

    def run() -> tuple[Tensor, ...]:
        q, k, v, q_weight, k_weight = given
        norms = (q_weight, k_weight)
        out = packed_attention(q, k, v, problem.segments, norms=norms, rotary=rotary, eps=EPS)
        return torch.autograd.grad(out, given, problem.grad)

    return run


def _turned(problem: Problem, weights: tuple[Tensor, ...], rotary: tuple[Tensor, Tensor]) -> Run:
    """Forward and backward of norms and rotations alone, compiled."""
    given = [x.clone().requires_grad_() for x in (*problem.inputs[:2], *weights)]
    compiled: Callable[..., Tensor] = torch.compile(turn)

    def run() -> tuple[Tensor, ...]:
        q, k, q_weight, k_weight = given
        made = [compiled(x, w, *rotary, EPS) for x, w in ((q, q_weight), (k, k_weight))]
        return torch.autograd.grad(made, given, [problem.grad, problem.grad])

    return run


def repeated_row(device: torch.device, num_tokens: int = TOKENS, runs: int = RUNS) -> Row:
    """How many of `runs` backward passes give the gradients of the first, bit for bit.

    There is no other, faster backward pass that this one could cost more than.
    """
    problem = Problem.draw(draw_lengths("shared trunk", num_tokens, 0), device, torch.bfloat16)
    run, _ = ours(problem)
    first = run()
    same = sum(all(map(torch.equal, run(), first)) for _ in range(runs))
    name = f"attention, shared trunk, {runs} backward passes, bitwise the same"
    return Row(name, same / runs, 1.0, same, runs, "runs")


def exactness_row(device: torch.device, num_tokens: int = EXACT_TOKENS) -> Row:
    """The error of bfloat16 gradients to fp64, against PyTorch's own on the same numbers."""
    problem = Problem.draw(draw_lengths("shared trunk", num_tokens, 0), device, torch.bfloat16)
    wide = Problem(
        problem.lengths,
        (problem.inputs[0].double(), problem.inputs[1].double(), problem.inputs[2].double()),
        problem.grad.double(),
        problem.segments,
    )
    wanted = _gradients(wide, "padded SDPA")
    theirs = difference(_gradients(problem, "padded SDPA"), wanted)
    name = "attention, shared trunk, error of bfloat16 gradients to fp64, against padded SDPA"
    return compare(name, difference(ours(problem)[0](), wanted), theirs, LEAST_EXACT, "relative")


def _gradients(problem: Problem, peer: str) -> tuple[Tensor, ...]:
    run, packed = PEERS[peer](problem)
    return packed(run())
