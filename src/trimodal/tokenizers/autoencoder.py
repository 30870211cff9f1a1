"""Convolutional encoder and decoder, of pictures (2 dimensions) and of frames (1 dimension).

No statistic spans positions, so a crop is encoded as it is inside the whole, up to the receptive
field. Every convolution sees zeros outside its input, also where a mask says that it is padded.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from trimodal.tokenizers.fsq import SPREAD

CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels (N, C, ...) of each position alone."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Shape is kept."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def convolution(
    dims: int, inputs: int, outputs: int, kernel: int = 1, stride: int = 1
) -> nn.Conv1d | nn.Conv2d:
    """A convolution of odd kernel that keeps the size, or, strided, of patches side by side."""
    padding = 0 if stride > 1 else kernel // 2
    return CONVOLUTIONS[dims](inputs, outputs, kernel, stride=stride, padding=padding)


def masked(x_NC: Tensor, mask_N1: Tensor | None) -> Tensor:
    """Zeros where the mask is false; a picture has none."""
    return x_NC if mask_N1 is None else x_NC * mask_N1


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity, which is all that a new block is."""

    def __init__(self, dims: int, width: int, kernel: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(width)
        self.conv1 = convolution(dims, width, width, kernel)
        self.norm2 = ChannelNorm(width)
        self.conv2 = convolution(dims, width, width, kernel)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_NC: Tensor, mask_N1: Tensor | None = None) -> Tensor:
        """Shape is kept."""
        hidden = self.conv1(masked(F.gelu(self.norm1(x_NC)), mask_N1))
        return x_NC + self.conv2(masked(F.gelu(self.norm2(hidden)), mask_N1))


class Encoder(nn.Module):
    """A convolution, then a strided one and residual blocks for each stride, then a projection."""

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        *,
        strides: Sequence[int],
        width: int,
        depth: int,
        kernel: int,
    ) -> None:
        super().__init__()
        self.stem = convolution(dims, inputs, width, kernel)
        self.strides = tuple(strides)
        self.down = nn.ModuleList(convolution(dims, width, width, s, s) for s in strides)
        self.blocks = nn.ModuleList(
            nn.ModuleList(ResidualBlock(dims, width, kernel) for _ in range(depth)) for _ in strides
        )
        self.norm = ChannelNorm(width)
        head = convolution(dims, width, outputs)
        nn.init.normal_(head.weight, std=SPREAD / math.sqrt(width))
        self.head = head

    def forward(self, x_NC: Tensor, mask_N1: Tensor | None = None) -> Tensor:
        """(N, inputs, ...) to (N, outputs, ...) of a stride-th of the size.

        Args:
            x_NC: sizes that are multiples of the total stride.
            mask_N1: (N, 1, F), what is not padding, in whole codes.
        """
        hidden = self.stem(masked(x_NC, mask_N1))
        for stride, down, blocks in zip(self.strides, self.down, self.blocks, strict=True):
            hidden = down(masked(hidden, mask_N1))
            mask_N1 = mask_N1 if mask_N1 is None else mask_N1[..., ::stride]
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                hidden = block(hidden, mask_N1)
        return self.head(self.norm(hidden))


class Decoder(nn.Module):
    """The encoder in reverse; a position becomes a patch of positions by a projection."""

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        *,
        strides: Sequence[int],
        width: int,
        depth: int,
        kernel: int,
    ) -> None:
        super().__init__()
        self.dims = dims
        self.depth, self.kernel = depth, kernel
        self.strides = tuple(reversed(strides))
        self.stem = convolution(dims, inputs, width, kernel)
        self.blocks = nn.ModuleList(
            nn.ModuleList(ResidualBlock(dims, width, kernel) for _ in range(depth))
            for _ in self.strides
        )
        self.up = nn.ModuleList(convolution(dims, width, width * s**dims) for s in self.strides)
        self.norm = ChannelNorm(width)
        self.head = convolution(dims, width, outputs, kernel)

    def forward(self, x_NC: Tensor, mask_N1: Tensor | None = None) -> Tensor:
        """(N, inputs, ...) to (N, outputs, ...) of stride times the size; mask at codes."""
        hidden = self.stem(masked(x_NC, mask_N1))
        for stride, blocks, up in zip(self.strides, self.blocks, self.up, strict=True):
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                hidden = block(hidden, mask_N1)
            hidden = self._spread(up(hidden), stride)
            if mask_N1 is not None:
                mask_N1 = mask_N1.repeat_interleave(stride, dim=-1)
        return self.head(masked(F.gelu(self.norm(hidden)), mask_N1))

    def settled(self, inputs: int) -> int:
        """Positions of an axis of the output that do not depend on the input behind so many."""
        reach = self.kernel // 2
        outputs = inputs - reach
        for stride in self.strides:
            outputs = stride * (outputs - 2 * self.depth * reach)
        return max(0, outputs - reach)

    def _spread(self, x_NC: Tensor, stride: int) -> Tensor:
        """Channels to neighbouring positions (Shi et al., 2016)."""
        if self.dims == 2:
            return F.pixel_shuffle(x_NC, stride)
        n, channels, frames = x_NC.shape
        spread = x_NC.reshape(n, channels // stride, stride, frames)
        return spread.transpose(2, 3).reshape(n, channels // stride, frames * stride)
