"""Nearest vectors in Triton: a program goes through one codebook for a tile of vectors.

index_TC = nearest(x_TD, codebooks_CKD)
"""

# pyright: reportMissingParameterType=false, reportCallIssue=false

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trimodal_kernels.aot import Build


class Launch(NamedTuple):
    """Vectors and codes of a tile, and how it is compiled."""

    rows: int
    codes: int
    num_warps: int
    num_stages: int


DEFAULT = Launch(64, 128, 4, 2)


@triton.jit(do_not_specialize=["num_rows", "num_books", "num_codes"])
def nearest_code(
    X, CODES, INDEX, num_rows, num_books, num_codes,
    D: tl.constexpr, WIDTH: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The running maximum of products with the codes of one book."""
    book = tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    rows_R = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside_RD = (rows_R < num_rows)[:, None] & (columns < D)[None, :]
    x_RD = tl.load(X + rows_R[:, None] * D + columns[None, :], mask=inside_RD, other=0.0)
    length_R = tl.sqrt(tl.sum(x_RD * x_RD, 1))
    x_RD /= tl.maximum(length_R, 1e-12)[:, None]
    best_R = tl.full([ROWS], -float("inf"), ACC)
    index_R = tl.zeros([ROWS], tl.int32)
    CODES += book * num_codes * D
    for start in range(0, num_codes, BLOCK):
        codes_B = start + tl.arange(0, BLOCK)
        at_DB = codes_B.to(tl.int64)[None, :] * D + columns[:, None]
        inside_DB = (codes_B < num_codes)[None, :] & (columns < D)[:, None]
        code_DB = tl.load(CODES + at_DB, mask=inside_DB, other=0.0)
        product_RB = tl.dot(x_RD, code_DB, input_precision=PRECISION, out_dtype=ACC)
        product_RB = tl.where((codes_B < num_codes)[None, :], product_RB, -float("inf"))
        top_R, at_R = tl.max(product_RB, 1, return_indices=True)
        index_R = tl.where(top_R > best_R, start + at_R, index_R)
        best_R = tl.maximum(best_R, top_R)
    tl.store(INDEX + rows_R * num_books + book, index_R.to(tl.int64), mask=rows_R < num_rows)


def nearest(x_TD: Tensor, codebooks_CKD: Tensor, launch: Launch = DEFAULT) -> Tensor:
    """See `trimodal_kernels.nearest.nearest`."""
    books, codes, width = codebooks_CKD.shape
    index_TC = torch.empty((len(x_TD), books), dtype=torch.int64, device=x_TD.device)
    if index_TC.numel():
        nearest_code[triton.cdiv(len(x_TD), launch.rows), books](
            x_TD.contiguous(), codebooks_CKD.contiguous(), index_TC, len(x_TD), books, codes,
            **_constants(width, launch, tl.float64 if x_TD.dtype == torch.float64 else tl.float32),
            num_warps=launch.num_warps, num_stages=launch.num_stages,
        )  # fmt: skip
    return index_TC


def _constants(width: int, launch: Launch, acc: tl.dtype) -> dict[str, object]:
    return {
        "D": width,
        "WIDTH": max(16, triton.next_power_of_2(width)),
        "ACC": acc,
        # three products of parts in tf32 are as exact as one in fp32, and matrix units take them
        "PRECISION": "tf32x3" if acc == tl.float32 else "ieee",
        "ROWS": launch.rows,
        "BLOCK": launch.codes,
    }


def builds(arch: int) -> Iterator[Build]:
    """What is shipped: vectors of 16 numbers, as BEST-RQ has them."""
    signature = {
        "X": "*fp32", "CODES": "*fp32", "INDEX": "*i64",
        "num_rows": "i32", "num_books": "i32", "num_codes": "i32",
    }  # fmt: skip
    constants = _constants(16, DEFAULT, tl.float32)
    yield Build(
        "nearest[16]", nearest_code, signature, constants, DEFAULT.num_warps, DEFAULT.num_stages
    )
