import math

import numpy as np
import pytest
import torch
from torch import Tensor

from trimodal.config import SpeechInputConfig
from trimodal.evaluation.cepstral import log_mel, mel_cepstral_distortion, waveform_distortion
from trimodal.processors import SpeechProcessor
from trimodal.streams import generator
from trimodal.testing import assert_close

MELS = 32
DECIBEL = math.log(10) / 10


@pytest.fixture
def processor() -> SpeechProcessor:
    """Of few bands."""
    return SpeechProcessor(SpeechInputConfig(num_mels=MELS))


def _ripple(order: int, decibels: float) -> np.ndarray:
    """A cosine over the mel axis, in logarithms of power."""
    angle = np.pi * order * (np.arange(MELS) + 0.5) / MELS
    return decibels * DECIBEL * np.cos(angle)


def _frames(count: int) -> np.ndarray:
    return generator("frames", count).normal(size=(count, MELS))


def _tone(pitch: float, seconds: float = 0.3) -> Tensor:
    times = torch.arange(int(16_000 * seconds)) / 16_000
    noise = torch.from_numpy(generator("tone").normal(0, 0.01, len(times)))
    return (0.3 * torch.sin(2 * math.pi * pitch * times) + noise).float()


@pytest.mark.parametrize("warp", [True, False])
@pytest.mark.parametrize("order", [1, 5, 13])
def test_a_ripple_of_six_decibels_by_hand(order: int, warp: bool) -> None:
    # the root mean square of a cosine of amplitude 6 is 6 / sqrt(2)
    flat_FM = np.zeros((4, MELS))
    found = mel_cepstral_distortion(flat_FM, flat_FM + _ripple(order, 6.0), warp=warp)
    assert_close(found, 6 / math.sqrt(2), "fp64")


def test_ripples_add_up_as_squares() -> None:
    both = _ripple(2, 3.0) + _ripple(7, 4.0)
    found = mel_cepstral_distortion(np.zeros((1, MELS)), both[None])
    assert_close(found, 5 / math.sqrt(2), "fp64")


@pytest.mark.parametrize("order", [0, 14, 20])
def test_loudness_and_fine_ripples_do_not_count(order: int) -> None:
    frames_FM = _frames(7)
    found = mel_cepstral_distortion(frames_FM, frames_FM + _ripple(order, 9.0), warp=False)
    assert found < 1e-12


def test_warping_undoes_a_change_of_tempo() -> None:
    frames_FM = _frames(20)
    slow_GM = np.repeat(frames_FM, 3, axis=0)
    assert mel_cepstral_distortion(frames_FM, slow_GM) < 1e-6
    assert mel_cepstral_distortion(frames_FM, slow_GM, warp=False) > 1.0


def test_the_path_is_the_best_of_all_paths() -> None:
    a_FM, b_GM = _frames(4), _frames(5)

    def paths(i: int, j: int) -> list[list[float]]:
        cost = mel_cepstral_distortion(a_FM[i : i + 1], b_GM[j : j + 1])
        if i == j == 0:
            return [[cost]]
        before = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        return [[*path, cost] for k, m in before if min(k, m) >= 0 for path in paths(k, m)]

    best = min(paths(3, 4), key=sum)
    found = np.float64(mel_cepstral_distortion(a_FM, b_GM))
    assert_close(found, np.mean(best), "fp64")


def test_symmetry_and_the_shorter_of_two() -> None:
    a_FM, b_GM = _frames(12), _frames(9)
    assert_close(mel_cepstral_distortion(a_FM, b_GM), mel_cepstral_distortion(b_GM, a_FM), "fp64")
    straight = mel_cepstral_distortion(a_FM, b_GM, warp=False)
    assert_close(straight, mel_cepstral_distortion(a_FM[:9], b_GM, warp=False), "fp64")


def test_loudness_of_a_waveform_does_not_count(processor: SpeechProcessor) -> None:
    tone = _tone(400)
    assert waveform_distortion(tone, 1e-3 * tone, processor) < 1e-3
    near, far = (waveform_distortion(tone, _tone(pitch), processor) for pitch in (420, 2000))
    assert 0 < near < far


def test_silence_is_cut_off_below_the_peak(processor: SpeechProcessor) -> None:
    tone = _tone(400)
    silent = torch.cat([tone, torch.zeros(4000)])
    hissing = torch.cat([tone, 1e-6 * torch.randn(4000)])
    assert waveform_distortion(silent, hissing, processor, warp=False) < 0.1
    levels_FM = log_mel(silent, processor)
    assert levels_FM.shape == (1 + len(silent) // processor.hop, MELS)
    assert_close(np.ptp(levels_FM), 8 * math.log(10), "fp32")


def test_the_shortest_sound_and_silence_have_frames(processor: SpeechProcessor) -> None:
    for waveform in (torch.zeros(1), torch.zeros(4000), torch.ones(3)):
        assert np.isfinite(log_mel(waveform, processor)).all()
    assert waveform_distortion(torch.zeros(1), torch.zeros(500), processor) == 0.0


@pytest.mark.parametrize("shapes", [((0, 4), (3, 4)), ((3, 4), (3, 5)), ((4,), (3, 4))])
def test_what_has_no_spectrum_is_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"utterance"):
        mel_cepstral_distortion(*(np.zeros(shape) for shape in shapes))
