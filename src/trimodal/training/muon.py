"""Muon for the matrices within blocks, AdamW for everything else, as one optimizer.

optimizer = MuonWithAdamW(hidden_groups, other_groups, config.training)
"""

from typing import Any

import torch

from trimodal.config import TrainingConfig


class MuonWithAdamW(torch.optim.Optimizer):
    """Orthogonalised momentum (Jordan et al., 2024) where a matrix maps tokens to tokens.

    Updates are scaled to the size of AdamW's (Liu et al., 2025), so that both take one learning
    rate and one decay. Groups and state are those of the two optimizers of torch within.
    """

    def __init__(
        self, hidden: list[dict[str, Any]], others: list[dict[str, Any]], config: TrainingConfig
    ) -> None:
        rate = config.learning_rate
        muon = [torch.optim.Muon(hidden, lr=rate, adjust_lr_fn="match_rms_adamw")] if hidden else []
        adamw = [torch.optim.AdamW(others, lr=rate, betas=config.betas, eps=1e-8)] if others else []
        self._inner: list[torch.optim.Optimizer] = [*muon, *adamw]
        super().__init__([group for inner in self._inner for group in inner.param_groups], {})
        for inner in self._inner:
            inner.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update both kinds of parameters; gradients are there already."""
        for inner in self._inner:
            inner.step()
