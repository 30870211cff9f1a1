"""Frames to a waveform, in one pass.

waveform_NS = load_vocoder(folder)(frames_NFM)
"""

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimodal.tokenizers.autoencoder import ChannelNorm, masked
from trimodal.tokenizers.config import VocoderConfig
from trimodal.tokenizers.mel import mel_spectrogram
from trimodal.tokenizers.speech import length_mask
from trimodal.tokenizers.stored import Stored

LARGEST_LOG = 4.6
"""Of the magnitudes, so that a bad step cannot overflow: e to this is about 100."""


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then an MLP (Liu et al., 2022), in one dimension."""

    def __init__(self, width: int, hidden: int, kernel: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.project = nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x_NCF: Tensor, mask_N1F: Tensor | None) -> Tensor:
        """Shape is kept."""
        hidden = self.depthwise(masked(x_NCF, mask_N1F)).transpose(1, 2)
        hidden = self.project(F.gelu(self.expand(self.norm(hidden))))
        return x_NCF + (self.scale * hidden).transpose(1, 2)


class Vocoder(Stored):
    """Vocos (Siuzdak, 2023): magnitude and phase of each frame, and an inverse STFT."""

    kind: ClassVar[str] = "vocoder"
    config_type: ClassVar[type[VocoderConfig]] = VocoderConfig
    config: VocoderConfig
    window_L: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__(config)
        with torch.device("cpu"):  # only its numbers are asked for
            mel = mel_spectrogram(config.speech_input)
        self.hop, self.num_fft = int(mel.hop_length), int(mel.n_fft)
        width, kernel = config.width, config.kernel
        self.stem = nn.Conv1d(config.speech_input.num_mels, width, kernel, padding=kernel // 2)
        self.stem_norm = ChannelNorm(width)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(width, width * config.mlp_ratio, kernel, 1 / max(1, config.depth))
            for _ in range(config.depth)
        )
        self.norm = ChannelNorm(width)
        self.head = nn.Linear(width, self.num_fft + 2)
        self.register_buffer("window_L", torch.hann_window(self.num_fft), persistent=False)

    def forward(self, frames_NFM: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        """A waveform (N, F * hop); sample f * hop lies in the middle of frame f, as in torchaudio.

        Args:
            frames_NFM: normalised log-mel frames.
            lengths_N: frames of each utterance, int64; without them, all. What an utterance gives
                does not depend on how far it is padded, and is silent behind its end.
        """
        num_frames = frames_NFM.shape[1]
        lengths = frames_NFM.new_full((len(frames_NFM),), num_frames, dtype=torch.int64)
        lengths = lengths if lengths_N is None else lengths_N
        # the end is a frame too: without a copy of the last one, its second half would fade out
        last = lengths[:, None] - 1
        index = torch.arange(num_frames + 1, device=frames_NFM.device).minimum(last)
        frames = frames_NFM.gather(1, index[..., None].expand(-1, -1, frames_NFM.shape[2]))
        mask_N1F = length_mask(lengths + 1, num_frames + 1)
        hidden = self.stem_norm(self.stem(masked(frames.transpose(1, 2), mask_N1F)))
        for block in self.blocks:
            hidden = block(hidden, mask_N1F)
        log_magnitude, phase = self.head(self.norm(hidden).transpose(1, 2)).chunk(2, dim=-1)
        spectrum = torch.polar(log_magnitude.clamp_max(LARGEST_LOG).exp(), phase)
        waveform = self._overlap_add(spectrum, mask_N1F)
        return waveform * length_mask(lengths * self.hop, waveform.shape[1])[:, 0]

    def settled(self, frames: int) -> int:
        """Samples that do not depend on the frames behind so many."""
        reach = (1 + self.config.depth) * (self.config.kernel // 2)
        return max(0, (frames - reach) * self.hop - self.num_fft // 2)

    def _overlap_add(self, spectrum_NFB: Tensor, mask_N1F: Tensor) -> Tensor:
        """The inverse STFT (N, (F - 1) * hop) of the frames under the mask."""
        pieces = torch.fft.irfft(spectrum_NFB, n=self.num_fft, dim=-1) * self.window_L
        both = torch.stack([pieces, self.window_L.square().expand_as(pieces)])
        both = (both * mask_N1F.transpose(1, 2)).flatten(0, 1).transpose(1, 2)
        size = (both.shape[-1] - 1) * self.hop
        added = F.fold(both, (1, size + self.num_fft), (1, self.num_fft), stride=(1, self.hop))
        added = added[:, 0, 0, self.num_fft // 2 : self.num_fft // 2 + size]
        waveform, envelope = added.chunk(2)
        return waveform / envelope.clamp_min(1e-3)


def load_vocoder(folder: str | Path, device: str | torch.device = "cpu") -> Vocoder:
    """Read a vocoder; see `Stored.load`."""
    return Vocoder.load(folder, device)
