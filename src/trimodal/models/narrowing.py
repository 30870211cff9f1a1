"""Weights that are kept in fewer bits and computed with in fp32.

narrow(model, "int8")
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trimodal.config import WEIGHTS
from trimodal.errors import ConfigError


def narrow(model: nn.Module, weights: str) -> None:
    """Keep the matrices of linear and convolutional layers in fewer bits; for inference alone.

    bf16 halves and int8 quarters their memory. Each is widened when it is used, which costs time.
    Tables of embeddings, norms and biases stay as they are.

    Args:
        model: changed in place.
        weights: one of `WEIGHTS`; int8 has a scale for each output channel, symmetric about zero
            (Krishnamoorthi, 2018, arXiv 1806.08342, section 3.1).

    Raises:
        ConfigError: it is none of them.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"weights: {weights} is none of {', '.join(WEIGHTS)}")
    if weights == "fp32":
        return
    for module in list(model.modules()):
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            module.weight.requires_grad_(False)
            way = _Int8() if weights == "int8" else _Bfloat16()
            # unsafe because what is kept has another type than what is given
            parametrize.register_parametrization(module, "weight", way, unsafe=True)


class _Bfloat16(nn.Module):
    def forward(self, kept: Tensor) -> Tensor:
        return kept.float()

    def right_inverse(self, weight: Tensor) -> tuple[Tensor]:
        return (weight.to(torch.bfloat16),)


class _Int8(nn.Module):
    def forward(self, codes: Tensor, scale: Tensor) -> Tensor:
        return codes * scale

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of the weight's shape, and scales (C, 1, ...) of its C output channels."""
        largest = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
        # a channel of zeros has the scale 1
        scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
        return (weight / scale).round().to(torch.int8), scale
