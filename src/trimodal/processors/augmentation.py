"""Random changes of training media; every draw comes from the generator that is passed in.

image = augment_image(image, config.vision_augment, generator(seed, "augment", step, id))
"""

import numpy as np
import torch
from torch import Tensor

from trimodal.config import SpeechAugmentConfig, VisionAugmentConfig


def augment_image(image: Tensor, config: VisionAugmentConfig, rng: np.random.Generator) -> Tensor:
    """A random affine change of a (3, H, W) uint8 picture and of its grey levels.

    What the change lays bare has the colour of the corner.
    """
    rotate, scale, shear_x, shear_y, shift_x, shift_y, gamma = rng.uniform(-1, 1, 7)
    if config == VisionAugmentConfig():
        return image
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    # torchvision fills by a mask that it puts on twice, which darkens a seam along the edge;
    # about its corner's colour a picture is filled with zeros, on which a mask does nothing
    corner = image[:, :1, :1].float()
    moved = transforms.affine(
        image.float() - corner,
        angle=float(rotate * config.rotate_degrees),
        translate=[
            float(shift_x * config.shift * image.shape[2]),
            float(shift_y * config.shift * image.shape[1]),
        ],
        scale=float(np.exp(scale * np.log1p(config.scale))),
        shear=[float(shear_x * config.shear_degrees), float(shear_y * config.shear_degrees)],
        interpolation=InterpolationMode.BILINEAR,
    )
    level = (moved + corner).clamp(0, 255) / 255
    return (255 * level ** float(np.exp(gamma * config.gamma))).round().to(torch.uint8)


def augment_speech(frames: Tensor, config: SpeechAugmentConfig, rng: np.random.Generator) -> Tensor:
    """Random changes of (F, M) log-mel frames; returns (F', M).

    Time stretch, vocal-tract warp and tilt stand for other speakers (Jaitly and Hinton, 2013), a
    noise floor for other rooms, masks as in SpecAugment (Park et al., 2019).
    """
    stretch, warp, tilt = rng.uniform(-1, 1, 3)
    frames = _resize(
        frames,
        float(np.exp(stretch * np.log1p(config.stretch))),
        float(np.exp(warp * np.log1p(config.warp))),
    )
    num_mels = frames.shape[1]
    frames = frames + torch.linspace(-1, 1, num_mels) * float(tilt * config.tilt)
    if rng.random() < config.noise:
        floor = float(rng.uniform(-2.5, 0.0)) + 0.3 * torch.from_numpy(
            rng.standard_normal(tuple(frames.shape), dtype=np.float32)
        )
        frames = torch.logaddexp(2.0 * frames, 2.0 * floor) / 2.0
    frames = _shift(frames, rng.integers(-config.shift, config.shift + 1, 2), rng)
    frames = (frames - frames.mean()) / frames.std().clamp_min(1e-3)
    return _hide(frames, config, rng)


def _resize(frames: Tensor, stretch: float, warp: float) -> Tensor:
    """Bilinear resampling of time by `stretch` and of the mel axis by `warp`."""
    num_frames, num_mels = frames.shape
    if stretch == 1.0 and warp == 1.0:
        return frames
    target = max(1, round(num_frames * stretch))
    at = torch.linspace(0, num_frames - 1, target)
    bands = (torch.arange(num_mels) / warp).clamp_max(num_mels - 1.0)
    return _interpolate(_interpolate(frames, at).T, bands).T


def _interpolate(rows: Tensor, at: Tensor) -> Tensor:
    low = at.floor().long()
    high = (low + 1).clamp_max(len(rows) - 1)
    weight = (at - low)[:, None]
    return rows[low] * (1 - weight) + rows[high] * weight


def _shift(frames: Tensor, ends: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Cut frames from each end (negative) or add quiet ones (positive), keeping at least half."""
    start, stop = int(ends[0]), int(ends[1])
    most = len(frames) // 4
    frames = frames[min(most, max(0, -start)) : len(frames) - min(most, max(0, -stop))]
    quiet = float(frames.amin()) + 0.2
    pads = [
        quiet
        + 0.2
        * torch.from_numpy(rng.standard_normal((max(0, n), frames.shape[1]), dtype=np.float32))
        for n in (start, stop)
    ]
    return torch.cat([pads[0], frames, pads[1]])


def _hide(frames: Tensor, config: SpeechAugmentConfig, rng: np.random.Generator) -> Tensor:
    """Set a band of mel channels and a span of frames to the mean, zero."""
    num_frames, num_mels = frames.shape
    bands = int(rng.integers(0, config.frequency_mask + 1))
    span = int(rng.uniform(0, config.time_mask) * num_frames)
    first_band = int(rng.integers(0, max(1, num_mels - bands)))
    first_frame = int(rng.integers(0, max(1, num_frames - span)))
    frames[:, first_band : first_band + bands] = 0
    frames[first_frame : first_frame + span] = 0
    return frames
