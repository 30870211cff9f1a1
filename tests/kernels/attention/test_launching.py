"""Constants of a launch, and what is shipped."""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import pytest
import torch
import triton.language as tl

from trimodal_kernels.attention import Extras
from trimodal_kernels.attention.launching import (
    HEAD_DIMS,
    constants,
    cut_halves,
    is_interpreting,
    pad_halves,
    padded_size,
    signature,
    variants,
)


@pytest.mark.parametrize(
    ("width", "size"), [(6, 32), (32, 32), (64, 64), (72, 128), (80, 128), (96, 128), (128, 128)]
)
def test_heads_are_padded_to_what_programs_know(width: int, size: int) -> None:
    assert padded_size(width) == size
    x = torch.randn(3, 2, width)
    wide = pad_halves(x, size)
    assert wide.shape == (3, 2, size)
    assert torch.equal(wide[..., size // 2 :][..., : width // 2], x[..., width // 2 :])
    assert torch.equal(cut_halves(wide, width), x)
    assert (wide != 0).sum() == x.numel()


def test_a_head_that_fits_is_not_copied() -> None:
    x = torch.randn(3, 5, 64)[:, 1:3]
    assert pad_halves(x, 64) is x
    assert cut_halves(x, 64) is x


def test_sums_are_as_exact_as_what_is_summed() -> None:
    q = torch.zeros(3, 2, 8)
    assert constants(q, Extras())["ACC"] == tl.float32
    assert constants(q.double(), Extras())["ACC"] == tl.float64
    assert constants(q.bfloat16(), Extras())["UPCAST"] == is_interpreting()
    assert not constants(q, Extras())["UPCAST"]


def test_what_is_not_given_is_not_computed() -> None:
    q = torch.zeros(3, 2, 8)
    flags = ("NORM", "ROTARY", "BIASED", "DROPPED")
    assert not any(constants(q, Extras())[flag] for flag in flags)
    a, b, c, d, e, f = torch.zeros(6, 1)
    given = Extras(a, b, c, d, e, f, dropout=0.1)
    assert all(constants(q, given)[flag] for flag in flags)


def test_every_size_of_head_is_shipped() -> None:
    shipped = {width for _, width, _ in variants()}
    assert shipped == set(HEAD_DIMS)
    assert any(c["BIASED"] and c["DROPPED"] for _, _, c in variants())


def test_every_argument_of_a_kernel_has_a_type() -> None:
    names = ["Q", "LSE", "TILES", "GRAD_BIAS", "PARTIAL_Q", "K_WEIGHT", "seed", "depth", "scale"]
    types = signature([*names, "BLOCK_M", "HALF"])
    assert list(types.values()) == [
        *("*bf16", "*fp32", "*i32", "*i64", "*fp32", "*fp32", "i64", "i32", "fp32"),
    ]
