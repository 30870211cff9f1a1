"""Pictures to codes and back.

tokenizer = load_vision_tokenizer(folder)
codes_NHW = tokenizer.encode(pixels_N3HW)
"""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from trimodal.errors import DataError
from trimodal.tokenizers.autoencoder import Decoder, Encoder
from trimodal.tokenizers.config import VisionTokenizerConfig
from trimodal.tokenizers.fsq import FSQ, Reconstruction
from trimodal.tokenizers.stored import Stored


class VisionTokenizer(Stored):
    """A convolutional FSQ autoencoder of pictures of any size; a code stands for a square patch."""

    kind: ClassVar[str] = "vision_tokenizer"
    config_type: ClassVar[type[VisionTokenizerConfig]] = VisionTokenizerConfig
    config: VisionTokenizerConfig

    def __init__(self, config: VisionTokenizerConfig) -> None:
        super().__init__(config)
        shape = {
            "strides": config.strides,
            "width": config.width,
            "depth": config.depth,
            "kernel": config.kernel,
        }
        self.encoder = Encoder(2, 3, len(config.levels), **shape)
        self.quantizer = FSQ(config.levels)
        self.decoder = Decoder(2, len(config.levels), 3, **shape)

    def forward(self, pixels_N3HW: Tensor) -> Reconstruction:
        """Pixels (N, 3, H, W), codes (N, H / stride, W / stride) and latents (N, ..., D).

        Args:
            pixels_N3HW: values in [-1, 1].

        Raises:
            DataError: a side is no multiple of the stride.
        """
        latent = self._latent(pixels_N3HW)
        values, codes = self.quantizer(latent)
        return Reconstruction(self.decoder(values.movedim(-1, 1)), codes, latent)

    @torch.no_grad()
    def encode(self, pixels_N3HW: Tensor) -> Tensor:
        """Codes (N, H / stride, W / stride) int64, 0 .. num_codes - 1; raises as `forward`."""
        return self.quantizer(self._latent(pixels_N3HW))[1]

    @torch.no_grad()
    def decode(self, codes_NHW: Tensor) -> Tensor:
        """Pixels (N, 3, H * stride, W * stride) in [-1, 1].

        Raises:
            DataError: there is no such code.
        """
        check_codes(codes_NHW, self.config.num_codes)
        return self.decoder(self.quantizer.values(codes_NHW).movedim(-1, 1)).clamp(-1, 1)

    def _latent(self, pixels_N3HW: Tensor) -> Tensor:
        height, width = pixels_N3HW.shape[-2:]
        stride = self.config.stride
        if height % stride or width % stride or not height or not width:
            raise DataError(
                f"image of {height} x {width} pixels cannot be cut into codes of {stride} x "
                f"{stride}: its sides must be multiples of {stride}",
                code="invalid_image",
            )
        return self.encoder(pixels_N3HW).movedim(1, -1)


def load_vision_tokenizer(
    folder: str | Path, device: str | torch.device = "cpu"
) -> VisionTokenizer:
    """Read a vision tokenizer; see `Stored.load`."""
    return VisionTokenizer.load(folder, device)


def check_codes(codes: Tensor, num_codes: int) -> None:
    """Refuse what the quantiser cannot have given.

    Raises:
        DataError: a code below 0 or from `num_codes`.
    """
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= num_codes):
        raise DataError(f"codes must lie in 0 .. {num_codes - 1}", code="invalid_code")
