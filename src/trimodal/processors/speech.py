"""Speech at any rate, mono or stereo, to log-mel frames.

medium = processor.medium(processor.frames(processor.decode("word.flac")))
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trimodal.batch import Medium, Modality
from trimodal.config import SpeechInputConfig
from trimodal.storage import ShardFile
from trimodal.tokenizers.mel import mel_spectrogram

SpeechSource = str | Path | ShardFile | bytes | tuple[np.ndarray, int]
LOG_FLOOR = 1e-6


class SpeechProcessor:
    """Decodes under limits, resamples, and computes normalised log-mel frames."""

    def __init__(self, config: SpeechInputConfig) -> None:
        self.config = config
        self._mel = mel_spectrogram(config)
        self.hop = int(self._mel.hop_length)
        self.num_fft = int(self._mel.n_fft)

    def decode(self, source: SpeechSource) -> Tensor:
        """A path, part of a shard, encoded bytes or (samples, rate) as a mono waveform (S,).

        The samples of a pair are (S,) or (S, channels) float in [-1, 1]; those of the waveform come
        at `sample_rate`.

        Raises:
            DataError: not WAV, FLAC, OGG or MP3; truncated, broken, empty, not finite or over the
                limits: `max_seconds`, 1 to 192 kHz, two channels.
        """
        # what reads recordings is not imported by those who have none
        from trimodal.processors.recording import waveform

        source = source.read() if isinstance(source, ShardFile) else source
        return waveform(source, self.config.max_seconds, self.config.sample_rate)

    def frames(self, waveform: Tensor) -> Tensor:
        """Log-mel frames (F, M) float32, shifted and scaled to mean 0 and variance 1 in all.

        One mean and one scale for the whole utterance remove its loudness and keep its spectrum.
        """
        frames = self.log_mel(waveform)
        return (frames - frames.mean()) / frames.std().clamp_min(1e-3)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Log-mel frames (F, M) float32 as they are, before `frames` normalises them."""
        least = self.num_fft // 2 + 1  # reflection at the ends needs this many samples
        if waveform.numel() < least:
            waveform = torch.nn.functional.pad(waveform, (0, least - waveform.numel()))
        with torch.no_grad():
            return self._mel(waveform).clamp_min(LOG_FLOOR * 1e-4).log().T

    def medium(self, frames: Tensor) -> Medium:
        """Pad (F, M) frames with zeros, their mean, to whole tokens."""
        stride = self.config.stride
        missing = -len(frames) % stride
        if missing:
            frames = torch.nn.functional.pad(frames, (0, 0, 0, missing))
        tokens = len(frames) // stride
        return Medium(Modality.SPEECH, frames.contiguous(), tokens, (tokens, 1))
