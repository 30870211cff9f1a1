"""Attention as it is shipped, on a GPU: whole tiles of 64, real sizes of heads, compiled."""

import pytest
import torch
from torch import Tensor

from trimodal.testing import assert_close
from trimodal_kernels import Kind, Segments
from trimodal_kernels.attention import Extras, attend
from trimodal_kernels.attention.forward import attention_forward
from trimodal_kernels.attention.reference import reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
HEADS = 3
NAMES = ("q_weight_K", "k_weight_K", "bias_HB")
Given = tuple[Tensor, Tensor, Tensor]


def _rows() -> list[tuple[int, int, int, int, Kind]]:
    """Captions, tiles and one more or less, a long one, prefixes, one of them shared."""
    rows: list[tuple[int, int, int, int, Kind]] = []
    end = 0
    for size in (1, 8, 17, 63, 64, 65, 197, 500, 5):
        rows.append((end, end + size, end, end + size, Kind.FULL))
        end += size
    for prefix, texts in ((70, (20,)), (33, (9, 90, 1))):
        start = end
        rows.append((start, start + prefix, start, start + prefix, Kind.FULL))
        end += prefix
        for size in texts:
            rows.append((end, end + size, start, start + prefix, Kind.FULL))
            rows.append((end, end + size, end, end + size, Kind.CAUSAL))
            end += size
    return rows


def _case(width: int, dtype: torch.dtype, everything: bool) -> tuple[Given, Segments, Extras]:
    rows = _rows()
    size = rows[-1][1]
    segments = Segments.from_rows(rows, size).to("cuda")
    segments.prepare(HEADS)
    # views that are not contiguous, as slices of one projection would be
    wide = torch.randn(size, 4, HEADS, width + 8, device="cuda").to(dtype)
    q, k, v, _ = (x[..., :width].requires_grad_() for x in wide.unbind(1))
    angle = torch.randn(size, width // 2, device="cuda")
    q_weight, k_weight = ((torch.rand(width, device="cuda") + 0.5).requires_grad_() for _ in "qk")
    extras = Extras(q_weight, k_weight, angle.cos(), angle.sin(), seed=7)
    if everything:
        bias = torch.randn(HEADS, 21, device="cuda").requires_grad_()
        position = torch.arange(size, dtype=torch.int32, device="cuda") % 41
        extras = extras._replace(bias_HB=bias, position_T=position, dropout=0.2)
    return (q, k, v), segments, extras


def _leaves(given: Given, extras: Extras) -> list[Tensor]:
    return [*given, *(x for x in map(extras._asdict().get, NAMES) if x is not None)]


def _expected(
    given: Given, segments: Segments, extras: Extras, grad: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """In fp64 on the same numbers."""
    q, k, v = (x.detach().double().requires_grad_() for x in given)
    changed = {
        name: value.detach().double().requires_grad_()
        for name, value in extras._asdict().items()
        if name in NAMES and value is not None
    }
    extras = extras._replace(**changed)
    low_RT, high_RT = segments.plan("reference", HEADS).tables
    out, _ = reference(q, k, v, low_RT, high_RT, extras)
    return out, torch.autograd.grad(out, _leaves((q, k, v), extras), grad.double())


def _apart(found: Tensor, wanted: Tensor) -> float:
    return float((found.detach().double() - wanted.detach()).norm() / wanted.detach().norm())


@pytest.mark.parametrize("everything", [False, True], ids=["used", "everything"])
@pytest.mark.parametrize("width", [32, 64, 72, 80, 96, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients(width: int, dtype: torch.dtype, everything: bool) -> None:
    given, segments, extras = _case(width, dtype, everything)
    out, _ = attend(*given, segments, extras)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, _leaves(given, extras), grad)
    wanted, grads = _expected(given, segments, extras, grad)
    kind = "fp32-gradient" if dtype is torch.float32 else "bf16"
    for ours, right in zip((out, *found), (wanted, *grads), strict=True):
        assert_close(1 + _apart(ours, right), 1.0, kind)


def test_a_compiled_step_is_the_same() -> None:
    given, segments, extras = _case(64, torch.bfloat16, False)
    grad = torch.randn(given[0].shape, device="cuda", dtype=torch.bfloat16)

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, segments, extras)[0]

    wanted = torch.autograd.grad(step(*given), given, grad)
    compiled = torch.compile(step, fullgraph=True)
    found = torch.autograd.grad(compiled(*given), given, grad)
    for ours, theirs in zip(found, wanted, strict=True):
        assert_close(ours, theirs, "bf16")


def test_no_new_shape_compiles_a_kernel_anew() -> None:
    angle = torch.randn(3000, 32, device="cuda")
    counts = []
    for lengths in ([64, 90, 200], [1, 65, 7], [16, 32, 1000], [500, 300, 111, 3]):
        size = sum(lengths)
        q, k, v = torch.randn(3, size, HEADS, 64, device="cuda").bfloat16().unbind(0)
        segments = Segments.from_lengths(lengths).to("cuda")
        rotary = angle[:size].cos().contiguous(), angle[:size].sin().contiguous()
        attend(q, k, v, segments, Extras(None, None, *rotary))
        counts.append(len(attention_forward.device_caches[torch.cuda.current_device()][0]))
    assert counts == counts[:1] * 4


@pytest.mark.parametrize("everything", [False, True], ids=["used", "everything"])
def test_the_same_bits_in_every_run(everything: bool) -> None:
    given, segments, extras = _case(64, torch.bfloat16, everything)
    grad = torch.randn(given[0].shape, device="cuda", dtype=torch.bfloat16)
    runs = [
        torch.autograd.grad(attend(*given, segments, extras)[0], _leaves(given, extras), grad)
        for _ in range(20)
    ]
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


def test_what_a_segment_gives_does_not_depend_on_its_neighbours() -> None:
    q, k, v = torch.randn(3, 700, HEADS, 64, device="cuda", dtype=torch.bfloat16).unbind(0)
    packed, _ = attend(q, k, v, Segments.from_lengths([30, 170, 500]).to("cuda"), Extras())
    for start, end in ((0, 30), (30, 200), (200, 700)):
        # two segments, as a single one is of one length and would go elsewhere
        own = (torch.cat([x[start:end], x[start : start + 1]]) for x in (q, k, v))
        own_q, own_k, own_v = own
        alone, _ = attend(
            own_q, own_k, own_v, Segments.from_lengths([end - start, 1]).to("cuda"), Extras()
        )
        assert_close(packed[start:end], alone[:-1], "bf16")


def test_offsets_beyond_31_bits() -> None:
    size, heads, width = 150_000, 128, 128
    q, k, v = (torch.randn(size, heads, width, device="cuda", dtype=torch.bfloat16) for _ in "qkv")
    segments = Segments.from_lengths([100] * (size // 100)).to("cuda")
    angle = torch.zeros(size, width // 2, device="cuda")
    out, _ = attend(q, k, v, segments, Extras(None, None, angle.cos(), angle.sin()))
    q, k, v = (x[-100:].double().transpose(0, 1) for x in (q, k, v))
    right = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(0, 1)
    assert_close(1 + _apart(out[-100:], right), 1.0, "bf16")
