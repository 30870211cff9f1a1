"""The padded twin computes what the packed model does."""

import pytest
import torch

from trimodal.batch import Medium, Modality, TokenBatch, pack_media
from trimodal.bench.padded import padded
from trimodal.config import TransformerConfig
from trimodal.models.layers import Transformer
from trimodal.testing import assert_close
from trimodal_kernels import Kind, Segments


def _tokens(lengths: list[int]) -> TokenBatch:
    media = [Medium(Modality.TEXT, torch.zeros(n, dtype=torch.int64), n, (n, 1)) for n in lengths]
    return pack_media(media).tokens


def _prefixed() -> TokenBatch:
    """Two views, each of them observed tokens and a causal target."""
    plain = _tokens([9, 7])
    rows = [
        (0, 5, 0, 5, Kind.FULL),
        (5, 9, 0, 9, Kind.CAUSAL),
        (9, 12, 9, 12, Kind.FULL),
        (12, 16, 9, 16, Kind.CAUSAL),
    ]
    return TokenBatch(
        plain.positions_T2,
        plain.modality_T,
        plain.route_T,
        plain.cu_seqlens,
        Segments.from_rows(rows, 16),
    )


@pytest.mark.parametrize("length", [None, 20])
@pytest.mark.parametrize("tokens", [_tokens([3, 9, 1]), _prefixed()], ids=["segments", "prefixes"])
def test_padding_changes_nothing_but_time(tokens: TokenBatch, length: int | None) -> None:
    stack = Transformer(TransformerConfig(width=32, depth=2, num_heads=2)).double()
    x = torch.randn(tokens.num_tokens, 32, dtype=torch.float64)
    parameters = list(stack.parameters())
    expected = stack(x, tokens)
    wanted = torch.autograd.grad(expected.square().sum(), parameters)
    with padded(length):
        made = stack(x, tokens)
        found = torch.autograd.grad(made.square().sum(), parameters)
    assert_close(made, expected, "fp32")
    for ours, theirs in zip(found, wanted, strict=True):
        assert_close(ours, theirs, "fp32-gradient")


def test_the_model_is_packed_again_afterwards() -> None:
    before = Transformer.forward
    with padded():
        assert Transformer.forward is not before
    assert Transformer.forward is before
