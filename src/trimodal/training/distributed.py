"""What ranks tell each other: rows with gradients, sums, and whether their weights are the same.

everyone = gather(z_NSE)
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trimodal.errors import ConfigError, NumericError, StoppedError
from trimodal.streams import digest

SETTLE_SECONDS = 0.2
FIRST_SECONDS = 20.0
"""That a process leaves the first one to say what is wrong with all, upon which they are ended."""
GLOO = "/gloo/"
"""In what gloo's errors say, which are of no class of their own."""


class _Gather(torch.autograd.Function):
    """All-gather along the first dimension; the gradient is what all ranks send back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous()
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.rows
        return total[start : start + ctx.rows]


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks in their order; every rank has the same number of them."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    if x.dtype == torch.bool:
        return gather(x.to(torch.uint8)).bool()
    return _Gather.apply(x) if x.is_floating_point() else _Gather.apply(x.detach())


def sum_over_ranks(values: list[float], device: torch.device) -> list[float]:
    """Each value summed over the ranks, in double precision."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()


def of_main_rank(value: int, device: torch.device) -> int:
    """What the main rank says, on every rank."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    said = torch.tensor([value], dtype=torch.int64, device=device)
    dist.broadcast(said, 0)
    return int(said)


def by_rank(value: float) -> list[float]:
    """One value in this rank's place and zeros in all others; the sum over ranks has everyone's."""
    if not dist.is_initialized():
        return [float(value)]
    rank = dist.get_rank()
    return [float(value) if i == rank else 0.0 for i in range(dist.get_world_size())]


def settle() -> None:
    """Let gloo's threads drop what they hold of the last collective, before the group ends.

    They need Python's lock to drop tensors, and the end of a group waits for them with the lock
    held: a process that ended right behind a collective could wait for ever.
    """
    if dist.is_initialized():
        time.sleep(SETTLE_SECONDS)


def check_launch() -> None:
    """Compare what a launcher was asked for with the machine; to be called before anything else.

    accelerate would take each of several processes for a run of its own, of which all but one find
    the run directory in use, and would compute on a CPU where a GPU was asked for.

    Raises:
        ConfigError: there are several processes for GPUs, and no GPU.
    """
    if torch.accelerator.is_available():
        return
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not parse_flag_from_env("ACCELERATE_USE_CPU"):
        if os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(FIRST_SECONDS)
        raise ConfigError(
            f"{world} processes were started for GPUs, and this machine has none; "
            "ACCELERATE_USE_CPU=true asks for CPUs"
        )
    if not parse_flag_from_env("ACCELERATE_USE_CPU", default=True):
        print("trimodal: this machine has no GPU; training on the CPU", file=sys.stderr, flush=True)


@contextmanager
def lost_ranks() -> Iterator[None]:
    """Say in a sentence that a collective failed; the rank that is gone has said why, if it could.

    Raises:
        StoppedError: another rank has ended, or was waited for in vain.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and GLOO not in str(error):
            raise
        raise StoppedError(
            f"rank {dist.get_rank()} of {dist.get_world_size()}: another process of the run ended "
            "or no longer answers; the same command resumes from the last checkpoint"
        ) from error


def check_replicas(model: nn.Module, device: torch.device) -> None:
    """Compare a sum over the bits of all parameters that every rank holds.

    Raises:
        NumericError: they differ; the message names the first parameter that does.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    named = [(name, p) for name, p in model.named_parameters() if not isinstance(p, DTensor)]
    if not named:
        return
    own = torch.stack([_bits(parameter) for _, parameter in named]).to(device)
    least, most = own.clone(), own.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    for (name, _), a, b in zip(named, least.tolist(), most.tolist(), strict=True):
        if a != b:
            raise NumericError(f"{name} is not the same on all ranks, so the run cannot be trusted")


def check_finite(files: Mapping[str, Mapping[str, Tensor]], device: torch.device) -> None:
    """Look at every number that any rank would save; each rank gives files of the same names.

    Raises:
        NumericError: some are not finite; the message names the files that hold them.
    """
    own = [
        float(sum(not bool(x.isfinite().all()) for x in named.values())) for named in files.values()
    ]
    broken = [
        f"{name} ({count:.0f} tensors)"
        for name, count in zip(files, sum_over_ranks(own, device), strict=True)
        if count
    ]
    if broken:
        raise NumericError(
            f"what would be saved is not finite: {', '.join(broken)}; the last checkpoint is as it "
            "was"
        )


def check_same(given: Mapping[str, object], device: torch.device) -> None:
    """Compare what every rank has to be started with.

    Args:
        given: by what it is called; values whose text is the same wherever they are.
        device: of the collective.

    Raises:
        ConfigError: ranks differ in one of them.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    # 63 bits fit int64
    own = torch.tensor([digest(repr(value)) >> 1 for value in given.values()], device=device)
    least, most = own.clone(), own.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    for name, a, b in zip(given, least.tolist(), most.tolist(), strict=True):
        if a != b:
            raise ConfigError(
                f"{name}: not the same on all ranks; start every process with one configuration, "
                "the same data and tokenizers, and a run_dir that all of them see"
            )


def _bits(x: Tensor) -> Tensor:
    """A number that any single flipped bit changes."""
    flat = x.detach().flatten().view(torch.uint8)
    weights = torch.arange(flat.numel(), device=x.device) % 65_521 + 1
    return (flat.to(torch.int64) * weights).sum()
