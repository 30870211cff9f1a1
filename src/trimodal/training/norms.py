"""How large the gradients of the components of a model are, beside the norm of all of them.

norms = GradientNorms(accelerator, model)
norm = norms.clip(most=1.0)
metrics = norms.named(sum_over_ranks(norms.squares, device))
"""

import math
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import nn

from trimodal.models import TrimodalModel
from trimodal.training.components import depths, place
from trimodal.training.sharding import is_sharded, own


class GradientNorms:
    """Of a model whose gradients every rank has in full, or its own rows of.

    The norm of each parameter is taken once, for the clipping and for its component, and read from
    the device with that of all. What a rank has of a component is told to the others along with
    what they tell each other of a step anyway.
    """

    def __init__(self, accelerator: Accelerator, model: nn.Module) -> None:
        """Note which component each parameter is of.

        Args:
            accelerator: of the run.
            model: as `prepare` gave it; what is to be frozen is frozen.
        """
        self.accelerator, self.model = accelerator, model
        bare: TrimodalModel = accelerator.unwrap_model(model)
        blocks = depths(bare)
        self._is_sharded = is_sharded(bare)
        self._component = {
            parameter: place(name, blocks).component
            for name, parameter in bare.named_parameters()
            if parameter.requires_grad
        }
        self.components = sorted(set(self._component.values()))
        """Those of which anything is trained."""
        self.squares = [0.0] * len(self.components)
        """What this rank adds to the squared norm of each of them in this step."""

    def clip(self, most: float) -> float:
        """Scale the gradients of a step so that their norm is at most `most`; its norm before."""
        grads = {p: own(p.grad) for p in self._component if p.grad is not None}
        # of a parameter of few rows a rank may have none
        grads = {parameter: grad for parameter, grad in grads.items() if grad.numel()}
        each = torch._foreach_norm([*grads.values()])  # pyright: ignore[reportPrivateImportUsage]
        each = torch.stack(each)
        if self._is_sharded:
            total = self.accelerator.clip_grad_norm_(self.model.parameters(), most)
            norm, norms = float(total or 0.0), each.tolist()
        else:
            # what `nn.utils.clip_grad_norm_` does, to the last bit
            total = torch.linalg.vector_norm(each)
            nn.utils.clip_grads_with_norm_(grads, most, total)
            norm, *norms = torch.cat([total[None], each]).tolist()
        sums = dict.fromkeys(self.components, 0.0)
        # of what all ranks have one tells
        if self._is_sharded or self.accelerator.is_main_process:
            for parameter, size in zip(grads, norms, strict=True):
                sums[self._component[parameter]] += size * size
        self.squares = list(sums.values())
        return norm

    def named(self, squares: Sequence[float]) -> dict[str, float]:
        """`grad_norm/COMPONENT` before the clipping, from the sums of `squares` over all ranks."""
        return {
            f"grad_norm/{component}": math.sqrt(square)
            for component, square in zip(self.components, squares, strict=True)
        }
