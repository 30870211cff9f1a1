"""Log-mel frames to codes and back.

tokenizer = load_speech_tokenizer(folder)
codes_NT = tokenizer.encode(frames_NFM, lengths_N)
"""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from trimodal.errors import DataError
from trimodal.tokenizers.autoencoder import Decoder, Encoder
from trimodal.tokenizers.config import SpeechTokenizerConfig
from trimodal.tokenizers.fsq import FSQ, Reconstruction
from trimodal.tokenizers.stored import Stored
from trimodal.tokenizers.vision import check_codes


class SpeechTokenizer(Stored):
    """A convolutional FSQ autoencoder of the frames that `SpeechProcessor.frames` gives.

    What an utterance gives does not depend on how far it is padded.
    """

    kind: ClassVar[str] = "speech_tokenizer"
    config_type: ClassVar[type[SpeechTokenizerConfig]] = SpeechTokenizerConfig
    config: SpeechTokenizerConfig

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        super().__init__(config)
        shape = {
            "strides": config.strides,
            "width": config.width,
            "depth": config.depth,
            "kernel": config.kernel,
        }
        num_mels = config.speech_input.num_mels
        self.encoder = Encoder(1, num_mels, len(config.levels), **shape)
        self.quantizer = FSQ(config.levels)
        self.decoder = Decoder(1, len(config.levels), num_mels, **shape)

    def forward(self, frames_NFM: Tensor, lengths_N: Tensor | None = None) -> Reconstruction:
        """Frames (N, F, M), codes (N, F / stride) and latents (N, F / stride, D); see `encode`."""
        latent, mask_N1T = self._latent(frames_NFM, lengths_N)
        values, codes = self.quantizer(latent)
        return Reconstruction(self._decoded(values, mask_N1T), codes, latent)

    @torch.no_grad()
    def encode(self, frames_NFM: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        """Codes (N, F / stride) int64, 0 .. num_codes - 1; 0 behind the end.

        Args:
            frames_NFM: normalised log-mel frames, F a multiple of the stride.
            lengths_N: frames of each utterance, int64; without them, all. What lies behind counts
                as zeros up to a whole code, and as nothing from there.

        Raises:
            DataError: F is no multiple of the stride, or M not what the tokenizer reads.
        """
        latent, mask_N1T = self._latent(frames_NFM, lengths_N)
        codes = self.quantizer(latent)[1]
        return codes if mask_N1T is None else codes * mask_N1T[:, 0].long()

    @torch.no_grad()
    def decode(self, codes_NT: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        """Frames (N, T * stride, M), zeros behind the end.

        Args:
            codes_NT: 0 .. num_codes - 1.
            lengths_N: codes of each utterance, int64; without them, all.

        Raises:
            DataError: there is no such code.
        """
        check_codes(codes_NT, self.config.num_codes)
        mask_N1T = None if lengths_N is None else length_mask(lengths_N, codes_NT.shape[1])
        return self._decoded(self.quantizer.values(codes_NT), mask_N1T)

    def _latent(self, frames_NFM: Tensor, lengths_N: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Latents (N, T, D), and (N, 1, T) what is not padding."""
        config = self.config
        frames, num_mels = frames_NFM.shape[1:]
        if frames == 0 or frames % config.stride or num_mels != config.speech_input.num_mels:
            raise DataError(
                f"speech of {frames} frames of {num_mels} bands cannot be cut into codes of "
                f"{config.stride} frames of {config.speech_input.num_mels} bands",
                code="invalid_audio",
            )
        x_NMF = frames_NFM.transpose(1, 2)
        if lengths_N is None:
            return self.encoder(x_NMF).transpose(1, 2), None
        x_NMF = x_NMF * length_mask(lengths_N, frames)
        mask_N1T = length_mask(-(-lengths_N // config.stride), frames // config.stride)
        mask_N1F = mask_N1T.repeat_interleave(config.stride, dim=-1)
        return self.encoder(x_NMF, mask_N1F).transpose(1, 2), mask_N1T

    def _decoded(self, values_NTD: Tensor, mask_N1T: Tensor | None) -> Tensor:
        frames_NFM = self.decoder(values_NTD.transpose(1, 2), mask_N1T).transpose(1, 2)
        if mask_N1T is None:
            return frames_NFM
        return frames_NFM * mask_N1T.repeat_interleave(self.config.stride, dim=-1).transpose(1, 2)


def length_mask(lengths_N: Tensor, size: int) -> Tensor:
    """(N, 1, size) float32, 1 before the end of each."""
    positions = torch.arange(size, device=lengths_N.device)
    return (positions < lengths_N[:, None])[:, None].float()


def load_speech_tokenizer(
    folder: str | Path, device: str | torch.device = "cpu"
) -> SpeechTokenizer:
    """Read a speech tokenizer; see `Stored.load`."""
    return SpeechTokenizer.load(folder, device)
