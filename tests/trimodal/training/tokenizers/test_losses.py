import pytest
import torch

from trimodal.testing import assert_close
from trimodal.training.tokenizers.losses import (
    frame_loss,
    magnitudes,
    masked_mean,
    psnr,
    spread_loss,
    ssim,
    stft_loss,
)


@pytest.mark.parametrize("size", [(1, 1), (2, 8), (8, 8), (28, 20)])
def test_ssim_is_one_for_equal_pictures_and_less_for_others(size: tuple[int, int]) -> None:
    a = torch.rand(2, 3, *size, dtype=torch.float64) * 2 - 1
    assert_close(ssim(a, a), 1.0, "fp64")
    noisy = ssim(a, (a + 0.5 * torch.randn_like(a)).clamp(-1, 1))
    assert float(noisy) < 0.98
    assert_close(ssim(a, a * 0.5), ssim(a * 0.5, a), "fp64")


def test_ssim_by_hand() -> None:
    """On one pixel there is no variance, so only the luminance term is left."""
    a, b = torch.full((1, 1, 1, 1), 0.6), torch.full((1, 1, 1, 1), 0.2)
    constant = (0.01 * 2) ** 2
    assert_close(ssim(a, b), (2 * 0.12 + constant) / (0.36 + 0.04 + constant), "fp32")


def test_ssim_has_the_right_gradient() -> None:
    a, b = (torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(ssim, (a, b))


def test_psnr_by_hand() -> None:
    assert psnr(4.0) == pytest.approx(0)
    assert psnr(0.04) == pytest.approx(20)
    assert psnr(0.0) == pytest.approx(100)


def test_frame_loss_by_hand() -> None:
    target = torch.zeros(1, 3, 2)
    frames = torch.tensor([[[1.0, 1.0], [1.0, -1.0], [9.0, 9.0]]])
    mask = torch.tensor([[[1.0], [1.0], [0.0]]])
    loss, absolute = frame_loss(frames, target, mask, squared=10.0, difference=100.0)
    assert float(absolute) == 1.0
    assert float(loss) == pytest.approx(1 + 10 * 1 + 100 * 1)
    assert float(masked_mean(frames, torch.zeros(1, 3, 1))) == 0


def test_spread_loss_by_hand() -> None:
    """0 for what uses all codes; a mean costs, and so does what two channels share."""
    latent = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]) * 0.9 * 0.75**0.5
    assert_close(spread_loss(latent), 0.0, "fp32")
    assert_close(spread_loss(latent + torch.tensor([0.9, 0.0])), 0.5, "fp32")
    assert_close(spread_loss(latent * 0), 1.0, "fp32")
    assert_close(spread_loss(latent[:, :1].expand(-1, 2)), 1.0, "fp32")


def test_stft_loss_hears_magnitudes_and_not_the_sign() -> None:
    torch.manual_seed(0)
    target = torch.randn(2, 2000) * 0.1
    assert_close(stft_loss(target, target, (128, 256)), 0.0, "fp32")
    assert_close(stft_loss(-target, target, (128, 256)), 0.0, "fp32")
    near, far = (stft_loss(target * g, target, (128, 256)) for g in (1.1, 2.0))
    assert 0 < float(near) < float(far)
    assert float(far) == pytest.approx(1 + torch.log(torch.tensor(2.0)).item(), rel=0.02)


def test_silence_has_a_gradient() -> None:
    silence = torch.zeros(1, 600, requires_grad=True)
    magnitudes(silence, 128).log().sum().backward()
    assert silence.grad is not None
    assert silence.grad.isfinite().all()
