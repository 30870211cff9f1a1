"""What the kernels of both passes share: a tile of the products, and with what they are launched.

s_RC = products(A, B, rows_R, columns_C, num_rows, num_columns, E, ...)
"""

# pyright: reportMissingParameterType=false, reportCallIssue=false, reportGeneralTypeIssues=false

import itertools
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trimodal_kernels.aot import Build
from trimodal_kernels.contrastive.pairs import Pairs


class Tile(NamedTuple):
    """Rows and columns of one program, how much of E it takes at once, and how it is launched."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """How many of them cover so many rows and columns."""
        return -(-rows // self.rows), -(-columns // self.columns)


MATRIX = Tile(128, 128, 64, 8, 3)
"""For 16 bits: at E = 512 the softmax takes 128 registers a thread and 96 KiB, so two programs
share a multiprocessor, and one takes exponentials while the other multiplies."""
MATRIX_32 = Tile(128, 128, 32, 8, 3)
"""For float32 in the matrix units (TF32)."""
EXACT = Tile(64, 64, 32, 8, 2)
"""For float32 without them."""


@triton.jit
def products(
    A, B, rows_R, columns_C, num_rows, num_columns, E: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, ACC: tl.constexpr, UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """(R, C) products of rows of A with rows of B, 0 beyond the last of either."""
    k_K = tl.arange(0, BLOCK_K)
    a_RK = A + rows_R.to(tl.int64)[:, None] * E + k_K[None, :]
    b_KC = B + columns_C.to(tl.int64)[None, :] * E + k_K[:, None]
    total_RC = tl.zeros([BLOCK_R, BLOCK_C], ACC)
    for start in range(0, E, BLOCK_K):
        mask_R, mask_C = (rows_R < num_rows)[:, None], (columns_C < num_columns)[None, :]
        if E % BLOCK_K != 0:
            mask_R, mask_C = (
                mask_R & (start + k_K < E)[None, :],
                mask_C & (start + k_K < E)[:, None],
            )
        x_RK = tl.load(a_RK + start, mask=mask_R, other=0.0)
        y_KC = tl.load(b_KC + start, mask=mask_C, other=0.0)
        if UPCAST:
            x_RK, y_KC = x_RK.to(tl.float32), y_KC.to(tl.float32)
        total_RC = tl.dot(x_RK, y_KC, total_RC, input_precision=PRECISION, out_dtype=ACC)
    return total_RC


@triton.jit
def halves(x_RC, BLOCK_R: tl.constexpr, HALF: tl.constexpr):
    """The left and the right half of a tile."""
    return tl.split(tl.permute(tl.reshape(x_RC, (BLOCK_R, 2, HALF)), (0, 2, 1)))


@triton.jit
def quarters(x_RC, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """A tile from left to right: at a time, fewer registers hold what belongs to columns."""
    left, right = halves(x_RC, BLOCK_R, BLOCK_C // 2)
    a, b = halves(left, BLOCK_R, BLOCK_C // 4)
    c, d = halves(right, BLOCK_R, BLOCK_C // 4)
    return a, b, c, d


@triton.jit
def none_beyond(id_R):
    """What is added to logits so that rows beyond the last, of negative id, have no pairs."""
    return tl.where(id_R >= 0, 0.0, -float("inf"))


def tile_for(a_NE: Tensor) -> Tile:
    """The shipped tile for embeddings of this type."""
    if a_NE.element_size() == 2:
        return MATRIX
    return MATRIX_32 if _precision() == "tf32" else EXACT


def constants(a_NE: Tensor, tile: Tile) -> dict[str, Any]:
    """What every kernel of both passes is compiled for."""
    return {
        "E": a_NE.shape[1], "BLOCK_R": tile.rows, "BLOCK_C": tile.columns, "BLOCK_K": tile.depth,
        "ACC": tl.float64 if a_NE.dtype == torch.float64 else tl.float32,
        "UPCAST": is_upcast(a_NE), "PRECISION": _precision(),
    }  # fmt: skip


def is_upcast(x: Tensor) -> bool:
    """16 bits in the interpreter, which gets their sums wrong."""
    return os.environ.get("TRITON_INTERPRET") == "1" and x.element_size() == 2


def _precision() -> str:
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


class Arguments(NamedTuple):
    """What every kernel of both passes reads, in the order in which it takes it."""

    a_NE: Tensor
    b_ME: Tensor
    id_N: Tensor
    id_M: Tensor
    """-1 for a column that takes no part."""
    scale: Tensor
    bias: Tensor

    @classmethod
    def of(cls, pairs: Pairs) -> "Arguments":
        """Everything without gaps, and a bias where there is none."""
        id_M = pairs.id_M if pairs.column_M is None else pairs.id_M.where(pairs.column_M, -1)
        bias = torch.zeros_like(pairs.scale) if pairs.bias is None else pairs.bias
        found = (pairs.a_NE, pairs.b_ME, pairs.id_N, id_M)
        return cls(*(x.contiguous() for x in found), pairs.scale, bias)


POINTERS = {
    "ID_N": "*i32", "ID_M": "*i32", "SCALE": "*fp32", "BIAS": "*fp32", "PART_N": "*fp32",
    "PART_M": "*fp32", "STATE_N": "*fp32", "STATE_M": "*fp32", "PART": "*fp32",
}  # fmt: skip


SHIPPED = (
    ("bf16", MATRIX, "ieee", 256),
    ("bf16", MATRIX, "ieee", 512),
    ("fp32", MATRIX_32, "tf32", 512),
    ("fp32", EXACT, "ieee", 512),
)
"""Type of embeddings, tile, precision of products, and E; others of E are compiled when met."""


def shipped() -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and constants of what is compiled ahead of time."""
    for (kind, tile, precision, width), both in itertools.product(SHIPPED, (False, True)):
        name = f"{kind} {precision} E={width}{' both' if both else ''}"
        yield name, {"kind": kind, "tile": tile, "PRECISION": precision, "E": width, "BOTH": both}


def build(name: str, kernel: Any, settings: dict[str, Any]) -> Build:
    """One of them for one kernel, whose other arguments are integers."""
    tile, kind, matrix = settings["tile"], f"*{settings['kind']}", settings["tile"] != EXACT
    blocks = {"BLOCK_R": tile.rows, "BLOCK_C": tile.columns, "BLOCK_K": tile.depth}
    fixed = {**settings, **blocks, "ACC": tl.float32, "UPCAST": False}
    fixed = {key: fixed[key] for key in kernel.arg_names if key in fixed}
    pointers = POINTERS | {"A": kind, "B": kind, "G": kind}
    given = [key for key in kernel.arg_names if key not in fixed]
    signature = {key: pointers.get(key, "i32") for key in given}
    return Build(name, kernel, signature, fixed, tile.warps, tile.stages, matrix)
