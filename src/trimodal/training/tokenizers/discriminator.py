"""Judges of reconstructions, for the optional adversarial term.

loss = hinge(discriminator(real), discriminator(fake))
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimodal.training.tokenizers.losses import magnitudes

LAYERS = 3


class PatchDiscriminator(nn.Module):
    """A score for each patch (Isola et al., 2017), without norms over the batch."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        widths = [width * min(4, 2**i) for i in range(LAYERS)]
        layers: list[nn.Module] = []
        for before, after in zip((inputs, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """One map of scores."""
        return [self.layers(x_NCHW)]


class SpectrogramDiscriminator(nn.Module):
    """A patch discriminator of the log magnitudes at each resolution (Jang et al., 2021)."""

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.parts = nn.ModuleList(PatchDiscriminator(1, width) for _ in sizes)

    def forward(self, waveform_NS: Tensor) -> list[Tensor]:
        """A map of scores for each resolution."""
        maps: list[Tensor] = []
        for size, part in zip(self.sizes, self.parts, strict=True):
            maps += part(magnitudes(waveform_NS, size).log()[:, None])
        return maps


def hinge(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """What the discriminator minimises."""
    losses = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).mean()


def fooled(fake: Sequence[Tensor]) -> Tensor:
    """What the generator minimises."""
    return torch.stack([-scores.mean() for scores in fake]).mean()
