"""What attention is given beside queries, keys and values, and the gradients that it returns.

Extras(q_weight_K, k_weight_K, cos_Tk, sin_Tk, eps=1e-6)
"""

from typing import NamedTuple

from torch import Tensor


class Extras(NamedTuple):
    """What changes queries, keys, scores and probabilities."""

    q_weight_K: Tensor | None = None
    k_weight_K: Tensor | None = None
    """Weights of the RMS norms of queries and keys; both or none."""
    cos_Tk: Tensor | None = None
    sin_Tk: Tensor | None = None
    """Of the angles by which pairs (i, i + K/2) are turned, (T, K/2) fp32; both or none."""
    bias_HB: Tensor | None = None
    """By head and distance, clipped to (B - 1) / 2 either way, what is added to the scores."""
    position_T: Tensor | None = None
    """int32, from which distances are taken."""
    eps: float = 1e-6
    dropout: float = 0.0
    seed: int = 0

    @property
    def weights(self) -> tuple[Tensor, Tensor] | None:
        """Of the norms."""
        if self.q_weight_K is None or self.k_weight_K is None:
            return None
        return self.q_weight_K, self.k_weight_K

    @property
    def rotary(self) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines."""
        return None if self.cos_Tk is None or self.sin_Tk is None else (self.cos_Tk, self.sin_Tk)

    @property
    def reach(self) -> int:
        """The largest distance that has a bias of its own."""
        return 0 if self.bias_HB is None else self.bias_HB.shape[1] // 2


class Gradients(NamedTuple):
    """Of what attention was given; None for what it was not."""

    q_THK: Tensor
    k_THK: Tensor
    v_THK: Tensor
    q_weight_K: Tensor | None = None
    k_weight_K: Tensor | None = None
    bias_HB: Tensor | None = None
