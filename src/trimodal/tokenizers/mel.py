"""The mel spectrogram that speech is read as, and a way back that needs no training.

waveform_NS = griffin_lim(frames_NFM, config, mean=-9.0, std=3.0)
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimodal.config import SpeechInputConfig

if TYPE_CHECKING:
    from torchaudio.transforms import MelSpectrogram

LOWEST_HZ = 20.0
LOUDNESS = 0.1
"""RMS of a waveform whose frames carry no loudness."""


def mel_spectrogram(config: SpeechInputConfig) -> "MelSpectrogram":
    """Waveform (..., S) to power (..., M, 1 + S // hop); frame f is centred on sample f * hop."""
    from torchaudio.transforms import MelSpectrogram

    window = round(config.window_ms * config.sample_rate / 1000)
    return MelSpectrogram(
        config.sample_rate,
        n_fft=1 << (window - 1).bit_length(),
        win_length=window,
        hop_length=round(config.hop_ms * config.sample_rate / 1000),
        n_mels=config.num_mels,
        f_min=LOWEST_HZ,
        power=2.0,
        norm="slaney",
        mel_scale="slaney",
    )


def with_loudness(waveform_NS: Tensor, rms: float = LOUDNESS) -> Tensor:
    """The waveforms at one loudness; silence stays silent."""
    level = waveform_NS.square().mean(-1, keepdim=True).sqrt()
    return waveform_NS * (rms / level.clamp_min(1e-5))


@torch.no_grad()
def griffin_lim(
    frames_NFM: Tensor, config: SpeechInputConfig, mean: float, std: float, rms: float = LOUDNESS
) -> Tensor:
    """A waveform (N, F * hop) on the CPU whose frames are about the given ones.

    The phase starts at random, drawn anew from one seed for each utterance, and is made consistent
    as by Griffin and Lim (1984) with momentum (Perraudin et al., 2013).

    Args:
        frames_NFM: normalised log-mel frames.
        config: how they were made.
        mean: of the log-mel frames before they were normalised, over the corpus.
        std: likewise.
        rms: loudness of the result.
    """
    from torchaudio.transforms import GriffinLim, InverseMelScale

    mel = mel_spectrogram(config)
    inverse = InverseMelScale(
        mel.n_fft // 2 + 1,
        config.num_mels,
        config.sample_rate,
        f_min=LOWEST_HZ,
        norm="slaney",
        mel_scale="slaney",
        driver="gelsd",  # with many bands some are empty, which the default cannot solve
    )
    phase = GriffinLim(mel.n_fft, win_length=mel.win_length, hop_length=mel.hop_length)
    frames = frames_NFM.detach().cpu().float()
    frames = torch.cat([frames, frames[:, -1:]], dim=1)  # the last one reaches half a hop too short
    power_NMF = (frames * std + mean).exp().transpose(1, 2)
    waveforms = []
    for power in power_NMF:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            waveforms.append(phase(inverse(power[None]))[0])
    return with_loudness(torch.stack(waveforms), rms)
