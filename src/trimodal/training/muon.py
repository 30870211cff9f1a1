"""Muon for the matrices within blocks, AdamW for everything else, as one optimizer.

optimizer = MuonWithAdamW(hidden_groups, other_groups, config.training)
"""

from typing import Any

import torch
from torch import Tensor

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
        muon = torch.optim.Muon(hidden, lr=rate, adjust_lr_fn="match_rms_adamw")
        adamw = torch.optim.AdamW(others, lr=rate, betas=config.betas, eps=1e-8)
        super().__init__([{"params": p["params"]} for p in (*hidden, *others)], {})
        self._inner = (muon, adamw)
        self.param_groups = [*muon.param_groups, *adamw.param_groups]
        muon.state = adamw.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> Tensor | None:
        """Update both kinds of parameters."""
        loss = None if closure is None else closure()
        for optimizer in self._inner:
            optimizer.step()
        return loss
