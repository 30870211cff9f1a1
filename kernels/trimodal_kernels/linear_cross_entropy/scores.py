"""What hidden rows say to the ids of a range, as the two factors of the product.

sum = Scores(h_KD, table_VD[start:end]).cross_entropy(target_K)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal_kernels.linear_cross_entropy import linear_cross_entropy, product_type


@dataclass(frozen=True)
class Scores:
    """Logits that are written down where somebody reads them, and not where a loss does.

    A model returns them from its forward; whoever takes the loss afterwards need not know in which
    type the model computes, nor where its table is.
    """

    h_KD: Tensor
    """Hidden rows (..., D), in the type in which the products are to be computed."""
    weight_VD: Tensor
    """A row for each id."""

    @classmethod
    def of(cls, h_KD: Tensor, weight_VD: Tensor) -> "Scores":
        """Of rows as a linear layer would take them, in the type of autocast if that is on."""
        return cls(h_KD.to(product_type(h_KD)), weight_VD)

    def logits(self) -> Tensor:
        """(..., V), in fp32 at least."""
        logits_KV = F.linear(self.h_KD, self.weight_VD.to(self.h_KD.dtype))
        return logits_KV.to(torch.promote_types(logits_KV.dtype, torch.float32))

    def cross_entropy(self, target_K: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Summed over all targets, see `linear_cross_entropy`."""
        return linear_cross_entropy(
            self.h_KD.flatten(0, -2),
            self.weight_VD,
            target_K.flatten(),
            label_smoothing=label_smoothing,
        )
