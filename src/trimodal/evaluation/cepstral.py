"""Mel-cepstral distortion: how far two utterances lie apart in the shape of their spectra, in dB.

waveform_distortion(generated_S, recorded_S, SpeechProcessor(config))
"""

import math

import numpy as np
from torch import Tensor

from trimodal.processors import SpeechProcessor

COEFFICIENTS = 13
DYNAMIC_RANGE = 8 * math.log(10)
"""80 dB, as a natural logarithm of power: what lies further below the peak is as good as silent."""


def log_mel(waveform_S: Tensor, processor: SpeechProcessor) -> np.ndarray:
    """Natural logarithms (F, M) of mel power; loudness changes nothing in them.

    The waveform, at the processor's rate, is scaled to a root mean square of 1, and what lies more
    than `DYNAMIC_RANGE` below its peak is raised to there, so that the digital silence of one
    recording is not held against the hiss of another. Unlike `SpeechProcessor.frames` these are not
    scaled to unit variance, which would take the unit away.
    """
    loudness = waveform_S.float().square().mean().sqrt().clamp_min(1e-12)
    level_FM = processor.log_mel(waveform_S.float() / loudness).double()
    return level_FM.clamp_min(float(level_FM.max()) - DYNAMIC_RANGE).numpy()


def waveform_distortion(
    a_S: Tensor, b_S: Tensor, processor: SpeechProcessor, *, warp: bool = True
) -> float:
    """`mel_cepstral_distortion` of two waveforms at the processor's rate."""
    return mel_cepstral_distortion(log_mel(a_S, processor), log_mel(b_S, processor), warp=warp)


def mel_cepstral_distortion(a_FM: np.ndarray, b_GM: np.ndarray, *, warp: bool = True) -> float:
    """Mel-cepstral distortion in dB (Kubichek, 1993), averaged over aligned frames.

    10 / ln 10 * sqrt(2 * sum of squared differences) of the cepstral coefficients 1 to 13. They are
    the cosine series (DCT-II) of the logarithm of the mel amplitudes, so that the distortion is the
    root mean square, over the mel axis, of the difference in dB that 13 cosines can describe.
    Coefficient 0 is left out: it is the loudness of the frame.

    Args:
        a_FM: natural logarithms of mel power, as `log_mel` gives them, F at least 1. Normalised
            frames may be given too, but then the unit is not dB.
        b_GM: likewise, with as many bands.
        warp: align by dynamic time warping (Sakoe and Chiba, 1978) and average over the path; else
            frame by frame, over the shorter of the two.

    Raises:
        ValueError: no frames, or another number of bands.
    """
    if a_FM.ndim != 2 or b_GM.ndim != 2 or a_FM.shape[1] != b_GM.shape[1]:
        raise ValueError(f"shapes {a_FM.shape} and {b_GM.shape} are not those of two utterances")
    if not len(a_FM) or not len(b_GM):
        raise ValueError("an utterance without frames has no spectrum")
    a_FK, b_GK = (_cepstrum(frames.astype(np.float64)) for frames in (a_FM, b_GM))
    scale = 10 / math.log(10) * math.sqrt(2)
    if not warp:
        size = min(len(a_FK), len(b_GK))
        return scale * float(np.linalg.norm(a_FK[:size] - b_GK[:size], axis=1).mean())
    square_FG = (
        np.square(a_FK).sum(axis=1)[:, None] + np.square(b_GK).sum(axis=1) - 2 * a_FK @ b_GK.T
    )
    return scale * _along_the_best_path(np.sqrt(square_FG.clip(min=0)))


def _cepstrum(level_FM: np.ndarray) -> np.ndarray:
    """Cosine coefficients 1 to 13 (F, 13) of the logarithms of amplitude."""
    num_mels = level_FM.shape[1]
    order_K = np.arange(1, COEFFICIENTS + 1)
    angle_MK = np.pi / num_mels * (np.arange(num_mels)[:, None] + 0.5) * order_K
    return level_FM @ np.cos(angle_MK) / num_mels


def _along_the_best_path(cost_FG: np.ndarray) -> float:
    """Mean cost along the path of least total cost, computed one anti-diagonal at a time."""
    rows, columns = cost_FG.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    length = np.zeros((rows + 1, columns + 1), dtype=np.int64)
    total[0, 0] = 0.0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        before = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        steps = np.stack([length[i - 1, j - 1], length[i - 1, j], length[i, j - 1]])
        chosen = before.argmin(axis=0)[None]
        total[i, j] = cost_FG[i - 1, j - 1] + np.take_along_axis(before, chosen, axis=0)[0]
        length[i, j] = 1 + np.take_along_axis(steps, chosen, axis=0)[0]
    return float(total[rows, columns] / length[rows, columns])
