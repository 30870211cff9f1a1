"""How attention is launched: what it is given beside q, k and v, block sizes, and constants.

settings = constants(q_THK, extras)
"""

import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
import triton.language as tl
from torch import Tensor

from trimodal_kernels.attention.extras import Extras
from trimodal_kernels.tiles import Tiles

HEAD_DIMS = (32, 64, 128)
"""The sizes of a head that programs know; others are padded to the next."""


def arch_of(device: torch.device) -> int:
    """80 for GPUs before Hopper, else 90: what programs are laid out for."""
    if device.type != "cuda":
        return 90
    return 90 if torch.cuda.get_device_capability(device) >= (9, 0) else 80


def is_interpreting() -> bool:
    """Whether Triton interprets kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def padded_size(width: int) -> int:
    """The size of a head, of any even one up to the largest, in a program."""
    return next(size for size in HEAD_DIMS if size >= width)


def pad_halves(x: Tensor, size: int) -> Tensor:
    """Zeros behind both halves of the last dimension: which columns are paired stays."""
    if x.shape[-1] == size:
        return x if x.stride(-1) == 1 else x.contiguous()
    return F.pad(x.unflatten(-1, (2, -1)), (0, (size - x.shape[-1]) // 2)).flatten(-2)


def cut_halves(x: Tensor, width: int) -> Tensor:
    """What `pad_halves` was given."""
    if x.shape[-1] == width:
        return x
    return x.unflatten(-1, (2, -1))[..., : width // 2].flatten(-2)


def padded(
    q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, extras: Extras
) -> tuple[Tensor, Tensor, Tensor, Extras]:
    """Heads, weights and angles of a size that programs know."""
    size = padded_size(q_THK.shape[-1])
    missing = (size - q_THK.shape[-1]) // 2
    q, k, v = (pad_halves(x, size) for x in (q_THK, k_THK, v_THK))
    q_weight, k_weight = (None if x is None else pad_halves(x, size) for x in extras[:2])
    cos, sin = (None if x is None else F.pad(x, (0, missing)).contiguous() for x in extras[2:4])
    changed = {"q_weight_K": q_weight, "k_weight_K": k_weight, "cos_Tk": cos, "sin_Tk": sin}
    return q, k, v, extras._replace(**changed)


def pointers(extras: Extras, like: Tensor) -> tuple[Tensor, ...]:
    """Weights, angles, biases and positions; what there is not is never read."""
    return tuple(like if x is None else x for x in extras[:6])


def numbers(
    q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, width: int, tiles: Tiles, extras: Extras
) -> tuple[float, ...]:
    """Strides, sizes and what else is no constant; `width` is that of heads before padding."""
    return (
        *q_THK.stride()[:2], *k_THK.stride()[:2], *v_THK.stride()[:2],
        len(q_THK), len(tiles.low_RT), extras.reach, width**-0.5,
        extras.eps, extras.dropout, extras.seed, width,
    )  # fmt: skip


def constants(q_THK: Tensor, extras: Extras) -> dict[str, Any]:
    """The constants of all kernels of attention, by name."""
    return _constants(
        q_THK.shape[-1],
        norm=extras.q_weight_K is not None,
        rotary=extras.cos_Tk is not None,
        biased=extras.bias_HB is not None,
        dropped=extras.dropout > 0,
        acc=tl.float64 if q_THK.dtype == torch.float64 else tl.float32,
        upcast=is_interpreting() and q_THK.element_size() < 4,
    )


def _constants(
    head_dim: int, *, norm: bool, rotary: bool, biased: bool, dropped: bool, acc: Any, upcast: bool
) -> dict[str, Any]:
    return {
        "HALF": padded_size(head_dim) // 2,
        "NORM": norm,
        "ROTARY": rotary,
        "BIASED": biased,
        "DROPPED": dropped,
        "ACC": acc,
        "UPCAST": upcast,
    }


ALIGNED = ("q_token", "q_head", "k_token", "k_head", "v_token", "v_head")
FLOATS = ("scale", "eps", "dropout")
TABLES = ("LOW", "HIGH", "TILES", "SPANS", "POSITION")
SINGLES = ("LSE", "DELTA", "COS", "SIN")
"""Pointers to fp32 whatever the type of the heads."""
WIDE = ("GRAD_BIAS",)


def signature(names: list[str]) -> dict[str, str]:
    """Triton's types of a kernel's arguments for bf16 heads, by what they are called."""
    types: dict[str, str] = {}
    for name in names:
        if name in FLOATS:
            types[name] = "fp32"
        elif name in TABLES:
            types[name] = "*i32"
        elif name in SINGLES or name.startswith("PARTIAL"):
            types[name] = "*fp32"
        elif name in WIDE:
            types[name] = "*i64"
        elif name in ("WEIGHT", "Q_WEIGHT", "K_WEIGHT", "BIAS"):
            types[name] = "*fp32"
        elif name == "seed":
            types[name] = "i64"
        elif name.islower():
            types[name] = "i32"
        elif name in ("Q", "K", "V", "OUT", "GRAD_OUT", "GRAD_Q", "GRAD_K", "GRAD_V"):
            types[name] = "*bf16"
    return types


def variants() -> Iterator[tuple[str, int, dict[str, Any]]]:
    """What is shipped: each size of head as the model uses it, and with everything at 64."""
    for head_dim in HEAD_DIMS:
        yield str(head_dim), head_dim, _used(head_dim)
    yield "64,plain", 64, {**_used(64), "NORM": False, "ROTARY": False}
    yield "64,bias,dropout", 64, {**_used(64), "BIASED": True, "DROPPED": True}


def _used(head_dim: int) -> dict[str, Any]:
    """As the blocks of the model use it: queries and keys normalised and turned."""
    return _constants(
        head_dim, norm=True, rotary=True, biased=False, dropped=False, acc=tl.float32, upcast=False
    )
