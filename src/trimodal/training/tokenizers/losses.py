"""What reconstructions are judged by, as pure functions.

loss = (pixels - target).abs().mean() + 0.5 * (1 - ssim(pixels, target))
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.tokenizers.fsq import SPREAD

WINDOW, SIGMA = 11, 1.5
LEAST_POWER = 1e-7


def ssim(a_NCHW: Tensor, b_NCHW: Tensor, data_range: float = 2.0) -> Tensor:
    """Structural similarity (Wang et al., 2004), the mean over pictures and places; 1 if equal.

    Args:
        a_NCHW: pictures; if they are smaller than the window, it is as large as they are.
        b_NCHW: likewise.
        data_range: the largest difference between two values.
    """
    size = min(WINDOW, a_NCHW.shape[2], a_NCHW.shape[3])
    at = torch.arange(size, dtype=a_NCHW.dtype, device=a_NCHW.device) - (size - 1) / 2
    weights = torch.exp(-0.5 * (at / SIGMA) ** 2)
    weights = weights / weights.sum()

    def mean(x: Tensor) -> Tensor:
        planes = x.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(planes, weights[None, None, None]), weights[None, None, :, None])

    mean_a, mean_b = mean(a_NCHW), mean(b_NCHW)
    variance_a = mean(a_NCHW.square()) - mean_a.square()
    variance_b = mean(b_NCHW.square()) - mean_b.square()
    covariance = mean(a_NCHW * b_NCHW) - mean_a * mean_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).mean()


def psnr(mse: float, data_range: float = 2.0) -> float:
    """Peak signal-to-noise ratio in dB, at most 100."""
    return float(10 * torch.log10(torch.tensor(data_range**2 / max(mse, data_range**2 * 1e-10))))


def spread_loss(latent_ND: Tensor) -> Tensor:
    """How far latents are from those that use all codes: mean 0, one variance, no correlation.

    A quantiser without a codebook cannot collapse, but an encoder can keep to a few of its levels;
    this is the variance and covariance of Bardes et al. (2022), with the variance held from both
    sides.
    """
    mean_D = latent_ND.mean(0)
    centred = (latent_ND - mean_D) / SPREAD
    covariance = centred.T @ centred / max(1, len(latent_ND) - 1)
    wanted = torch.eye(len(mean_D), device=mean_D.device)
    return (mean_D / SPREAD).square().mean() + (covariance - wanted).square().sum(0).mean()


def masked_mean(x_NFM: Tensor, mask_NF1: Tensor) -> Tensor:
    """The mean over what the mask lets through; 0 if that is nothing."""
    return (x_NFM * mask_NF1).sum() / (mask_NF1.sum() * x_NFM.shape[-1]).clamp_min(1)


def frame_loss(
    frames_NFM: Tensor, target_NFM: Tensor, mask_NF1: Tensor, squared: float, difference: float
) -> tuple[Tensor, Tensor]:
    """L1 plus weighted L2 plus weighted L1 of the changes in time, and the L1 alone.

    Args:
        frames_NFM: what was reconstructed.
        target_NFM: what it should be.
        mask_NF1: 1 for frames that count.
        squared: weight of the L2.
        difference: weight of the changes.
    """
    error = frames_NFM - target_NFM
    absolute = masked_mean(error.abs(), mask_NF1)
    change = masked_mean((error[:, 1:] - error[:, :-1]).abs(), mask_NF1[:, 1:])
    square = masked_mean(error.square(), mask_NF1)
    return absolute + squared * square + difference * change, absolute


def magnitudes(waveform_NS: Tensor, num_fft: int) -> Tensor:
    """Of the STFT (N, B, F) with a hop of a quarter of the window."""
    window = torch.hann_window(num_fft, device=waveform_NS.device)
    spectrum = torch.stft(
        waveform_NS, num_fft, num_fft // 4, window=window, pad_mode="constant", return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()
    return power.clamp_min(LEAST_POWER).sqrt()


def stft_loss(waveform_NS: Tensor, target_NS: Tensor, sizes: Sequence[int]) -> Tensor:
    """Spectral convergence plus L1 of log magnitudes (Yamamoto et al., 2020), mean over sizes."""
    losses = []
    for size in sizes:
        got, wanted = magnitudes(waveform_NS, size), magnitudes(target_NS, size)
        distance = torch.linalg.vector_norm(got - wanted, dim=(1, 2))
        convergence = distance / torch.linalg.vector_norm(wanted, dim=(1, 2)).clamp_min(1e-3)
        losses.append(convergence.mean() + (got.log() - wanted.log()).abs().mean())
    return torch.stack(losses).mean()
