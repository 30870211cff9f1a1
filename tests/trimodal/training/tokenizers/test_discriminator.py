import pytest
import torch

from trimodal.training.tokenizers.discriminator import (
    PatchDiscriminator,
    SpectrogramDiscriminator,
    fooled,
    hinge,
)


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 33)])
def test_a_score_for_each_patch(size: tuple[int, int]) -> None:
    [scores] = PatchDiscriminator(3, 4)(torch.randn(2, 3, *size))
    assert scores.shape == (2, 1, -(-size[0] // 8), -(-size[1] // 8))


def test_a_map_for_each_resolution() -> None:
    maps = SpectrogramDiscriminator((64, 128), 4)(torch.randn(2, 1000))
    assert [scores.shape[0] for scores in maps] == [2, 2]
    assert maps[0].shape != maps[1].shape


def test_hinge_by_hand() -> None:
    real, fake = [torch.tensor([2.0, 0.0])], [torch.tensor([-3.0, 0.5])]
    assert float(hinge(real, fake)) == pytest.approx(0.5 + 0.75)
    assert float(fooled(fake)) == pytest.approx(1.25)


def test_a_discriminator_learns_to_tell() -> None:
    judge = PatchDiscriminator(1, 8)
    optimizer = torch.optim.Adam(judge.parameters(), lr=3e-3)
    loss = torch.tensor(2.0)
    for _ in range(40):
        real = torch.randn(8, 1, 8, 8)
        fake = torch.randn(8, 1, 8, 8) * 0.2
        loss = hinge(judge(real), judge(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1.0  # 2 says nothing
