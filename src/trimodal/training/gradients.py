"""The gradient of one step: exact over the whole batch, whatever it is cut into.

    losses = compute_gradients(accelerator, model, batches, config, step)

The contrastive loss couples all samples of a step. Its gradient with respect to the embeddings is
taken first, then carried into the model micro-batch by micro-batch (GradCache, Gao et al., 2021).
With a single micro-batch the first pass is the only forward.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from trimodal.batch import Batch, Modality
from trimodal.config import RunConfig
from trimodal.models import TrimodalModel, TrimodalOutput
from trimodal.objectives import Embeddings, contrastive, hidden_counts, masked, of_batches
from trimodal.streams import digest
from trimodal.training.distributed import gather, sum_over_ranks

T = TypeVar("T")


class StepGradients:
    """Computes a step's gradients and losses for a fixed model and configuration."""

    def __init__(self, accelerator: Accelerator, model: nn.Module, config: RunConfig) -> None:
        self.accelerator = accelerator
        self.model = model
        self.bare: TrimodalModel = accelerator.unwrap_model(model)
        self.config = config

    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, float]:
        """Add the gradients of one step to the parameters.

        Returns:
            The losses of the whole step over all ranks, by name; `loss` is their weighted sum.
        """
        own = [*hidden_counts(batches), int(len(batches) > 1)]
        *counts, cut = sum_over_ranks([float(n) for n in own], self.accelerator.device)
        # all ranks take two passes if one does, or their collectives would not match
        cached = cut > 0
        parts, output = [], None
        with torch.no_grad() if cached else nullcontext():
            for i, batch in enumerate(batches):
                output = None  # two micro-batches' logits at once are what the cut avoids
                output = self._forward(batch, step, i)
                parts.append(_required(output.z_NSE).detach())
        only = _required(output)
        scale, bias = _required(only.logit_scale), _required(only.logit_bias)
        leaves = [x.detach().requires_grad_() for x in (torch.cat(parts), scale, bias)]
        shares = self._contrast(leaves, batches)
        grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        grads_NSE = grads[0].split([len(part) for part in parts])
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                output = self._forward(batch, step, i) if cached else only
                total, hidden = self._masked(output, batch, counts)
                total = total + (_required(output.z_NSE) * grads_NSE[i]).sum()
                if last:
                    total = total + _required(output.logit_scale) * grads[1]
                    total = total + _required(output.logit_bias) * grads[2]
                # data-parallel training averages over ranks what is to be summed
                self.accelerator.backward(
                    (total + _required(output.zero)) * self.accelerator.num_processes
                )
            for name, loss in hidden.items():
                shares[name] = shares.get(name, 0.0) + float(loss.detach())
        return self._summed(shares, counts)

    def _forward(self, batch: Batch, step: int, index: int) -> TrimodalOutput:
        """One micro-batch; dropout is a pure function of (seed, step, rank, micro-batch)."""
        keys = (self.config.seed, step, self.accelerator.process_index, index)
        torch.manual_seed(digest("dropout", *keys) >> 1)
        return self.model(**batch.inputs())

    def _contrast(self, leaves: Sequence[Tensor], batches: Sequence[Batch]) -> dict[str, float]:
        """Leave the weighted gradient in embeddings, scale and bias; return the shares by name."""
        config = self.config.objectives.contrastive
        if config is None or config.weight == 0:
            return {}
        z_NSE, scale, bias = leaves
        local = of_batches(z_NSE, batches)
        everyone = Embeddings(
            gather(z_NSE),
            gather(local.present_NS),
            gather(local.members_N3),
            gather(local.group_N),
        )
        dimensions = self.bare.architecture.dimensions
        loss, pairs = contrastive(local, everyone, scale, bias, config, dimensions)
        (loss * config.weight).backward()
        named = {"contrastive": loss, **{f"contrastive_{name}": x for name, x in pairs.items()}}
        return {name: float(share.detach()) for name, share in named.items()}

    def _masked(
        self, output: TrimodalOutput, batch: Batch, counts: list[float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's share: a mean over each modality's tokens, then over modalities."""
        total = _required(output.logit_scale) * 0
        config = self.config.objectives.masked
        if config is None or config.weight == 0:
            return total, {}
        shares = {}
        num_modalities = sum(count > 0 for count in counts)
        for modality, loss in masked(output.predictions or {}, batch, self.bare.vocabulary).items():
            share = loss / counts[modality]
            shares[f"masked_{modality.name.lower()}"] = share
            total = total + config.weight * share / num_modalities
        return total, shares

    def _summed(self, shares: dict[str, float], counts: list[float]) -> dict[str, float]:
        """The losses over all ranks; which of them there are is the same on every rank."""
        contrasts = [name for name in shares if name.startswith("contrastive")]
        hidden = [f"masked_{m.name.lower()}" for m in Modality if counts[m] > 0]
        names = [*contrasts, *hidden]
        values = [shares.get(name, 0.0) for name in names]
        summed = dict(zip(names, sum_over_ranks(values, self.accelerator.device), strict=True))
        objectives, total = self.config.objectives, 0.0
        if objectives.contrastive is not None and contrasts:
            total += objectives.contrastive.weight * summed["contrastive"]
        if objectives.masked is not None and hidden:
            summed["masked"] = sum(summed[name] for name in hidden) / len(hidden)
            total += objectives.masked.weight * summed["masked"]
        return {"loss": total, **summed}


def _required(x: T | None) -> T:
    assert x is not None  # noqa: S101 - the model's forward always sets it
    return x
