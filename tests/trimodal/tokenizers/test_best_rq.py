import pytest
import torch

from trimodal.testing import assert_close
from trimodal.tokenizers import BestRQ


def test_targets_are_the_nearest_vectors() -> None:
    quantizer = BestRQ(num_mels=8, stride=2, num_codebooks=3, codebook_size=50)
    frames = torch.randn(10, 8)
    targets = quantizer.targets(frames)
    assert targets.shape == (5, 3)
    assert targets.dtype is torch.int64
    assert_close(quantizer.codebooks_CKD.norm(dim=-1), torch.ones(3, 50), "unit-norm")
    projected = frames.reshape(5, 16) @ quantizer.projection_PD
    projected = projected / projected.norm(dim=-1, keepdim=True)
    for codebook in range(3):
        distances = torch.cdist(projected, quantizer.codebooks_CKD[codebook])
        assert torch.equal(distances.argmin(-1), targets[:, codebook])


def test_the_same_arguments_give_the_same_and_others_do_not() -> None:
    frames = torch.randn(400, 8)
    first = BestRQ(num_mels=8, seed=3).targets(frames)
    torch.manual_seed(99)
    assert torch.equal(BestRQ(num_mels=8, seed=3).targets(frames), first)
    assert not torch.equal(BestRQ(num_mels=8, seed=4).targets(frames), first)
    assert (first[:, 0] != first[:, 1]).any(), "the codebooks are one"


def test_numbers_are_fixed() -> None:
    """They are never stored, so a model depends on their staying what they are."""
    frames = torch.arange(64).reshape(8, 8).sin()
    quantizer = BestRQ(num_mels=8, num_codebooks=2, codebook_size=100, seed=1)
    assert quantizer.targets(frames).tolist() == NUMBERS


def test_loudness_changes_nothing_and_neighbours_do_not_matter() -> None:
    quantizer = BestRQ(num_mels=8)
    frames = torch.randn(40, 8)
    targets = quantizer.targets(frames)
    assert torch.equal(quantizer.targets(frames * 7), targets)
    assert torch.equal(quantizer.targets(frames[8:16]), targets[2:4])
    assert len(quantizer.targets(torch.randn(4000, 8))[:, 0].unique()) > 400


@pytest.mark.parametrize(("frames", "tokens"), [(1, 1), (4, 1), (5, 2)])
def test_the_last_token_is_filled_with_zeros(frames: int, tokens: int) -> None:
    quantizer = BestRQ(num_mels=8)
    given = torch.randn(frames, 8)
    targets = quantizer.targets(given)
    assert len(targets) == tokens
    filled = torch.cat([given, torch.zeros(tokens * 4 - frames, 8)])
    assert torch.equal(quantizer.targets(filled), targets)


NUMBERS = [[33, 6], [33, 73]]
