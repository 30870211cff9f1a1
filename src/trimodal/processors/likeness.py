"""How alike two pictures or two utterances are, and from where one is the other over again.

picture_likeness(given_CHW, made_CHW) > COPY
"""

import numpy as np
import torch
from torch import Tensor

COPY = 0.95
"""A medium that correlates with another one more than this is a copy of it."""


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, over all numbers of two arrays of one shape; 0 if either is constant."""
    a, b = (x.astype(np.float64).ravel() - x.mean(dtype=np.float64) for x in (a, b))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms > 1e-9 else 0.0


def picture_likeness(given_CHW: Tensor, made_CHW: Tensor) -> float:
    """Of the values of all pixels, in any scale, at the size of the picture that was given."""
    size = (given_CHW.shape[1], given_CHW.shape[2])
    resized = torch.nn.functional.interpolate(
        made_CHW[None].float(), size, mode="bilinear", antialias=True
    )
    return correlation(given_CHW.numpy(), resized[0].numpy())


def speech_likeness(given_FM: Tensor, made_FM: Tensor) -> float:
    """Of log-mel frames, as far as the shorter utterance goes."""
    size = min(len(given_FM), len(made_FM))
    return correlation(given_FM[:size].numpy(), made_FM[:size].numpy())
