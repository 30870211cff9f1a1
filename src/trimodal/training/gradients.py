"""The gradient of one step: exact over the whole batch, whatever it is cut into.

    losses = StepGradients(accelerator, model, config)(batches)

The contrastive loss couples all samples of a step. Its gradient with respect to the embeddings is
taken first, then carried into the model micro-batch by micro-batch (GradCache, Gao et al., 2021).
With a single micro-batch the first pass is the only forward.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trimodal.batch import Batch
from trimodal.config import RunConfig
from trimodal.models import TrimodalModel, TrimodalOutput
from trimodal.objectives import (
    LOSSES,
    NAMES,
    Embeddings,
    contrastive,
    of_batches,
    predicted,
    predicted_counts,
    weights,
)
from trimodal.training.distributed import by_rank, gather, sum_over_ranks
from trimodal.training.sharding import held_back, is_sharded

T = TypeVar("T")


class StepGradients:
    """Computes a step's gradients and losses for a fixed model and configuration."""

    def __init__(self, accelerator: Accelerator, model: nn.Module, config: RunConfig) -> None:
        self.accelerator = accelerator
        self.model = model
        self.bare: TrimodalModel = accelerator.unwrap_model(model)
        matching = config.objectives.matching
        # else a rank without tuples would gather the trunk once, and the others twice
        self.bare.shows_tuples = bool(matching and matching.weight) and is_sharded(self.bare)
        self.config = config
        self._laid_out = not isinstance(model, DistributedDataParallel)
        self.added = 0
        """Micro-batches of nothing that this rank computed in the last step beside its own."""

    def __call__(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Add the gradients of one step to the parameters.

        Returns:
            The losses of the whole step over all ranks, by name; `loss` is their weighted sum.
        """
        if not self._laid_out:
            self._lay_out(batches[0])
        own = [*(float(n) for n in predicted_counts(batches)), *by_rank(len(batches))]
        sums = sum_over_ranks(own, self.accelerator.device)
        counts = {name: count for name, count in zip(NAMES, sums, strict=False) if count}
        # as many forwards on all ranks, or the collectives of sharded modules would not match
        most = int(max(sums[len(NAMES) :]))
        self.added = most - len(batches)
        batches = [*batches, *[_nothing(batches[0])] * self.added]
        cached = most > 1
        parts, output = [], None
        with torch.no_grad() if cached else nullcontext():
            for batch in batches:
                output = None  # two micro-batches' activations at once are what the cut avoids
                output = self._forward(batch)
                parts.append(_required(output.z_NSE).detach())
        only = _required(output)
        scale, bias = _required(only.logit_scale), _required(only.logit_bias)
        leaves = [x.detach().requires_grad_() for x in (torch.cat(parts), scale, bias)]
        shares = self._contrast(leaves, batches)
        grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        grads_NSE = grads[0].split([len(part) for part in parts])
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with nullcontext() if last else held_back(self.accelerator, self.model):
                output = self._forward(batch) if cached else only
                total, predictions = self._predicted(output, batch, counts)
                total = total + (_required(output.z_NSE) * grads_NSE[i]).sum()
                if last:
                    total = total + _required(output.logit_scale) * grads[1]
                    total = total + _required(output.logit_bias) * grads[2]
                # data-parallel training averages over ranks what is to be summed
                self.accelerator.backward(
                    (total + _required(output.zero)) * self.accelerator.num_processes
                )
            for name, loss in predictions.items():
                shares[name] = shares.get(name, 0.0) + float(loss.detach())
        return self._summed(shares, counts)

    def _lay_out(self, batch: Batch) -> None:
        """Have the buckets of gradients laid out before a first step, in an order of no data's.

        They are laid out once, in the order in which the first gradients are there, and more than
        two ranks add in an order that depends on it: without this the first step after a resume
        would differ in its last bits from the same step of a run that went on.
        """
        self._forward(_nothing(batch))
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        torch.stack([parameter.sum() * 0 for parameter in trained]).sum().backward()
        self.model.zero_grad()
        self._laid_out = True

    def _forward(self, batch: Batch) -> TrimodalOutput:
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

    def _predicted(
        self, output: TrimodalOutput, batch: Batch, counts: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's share: a mean over each loss's tokens, then over the losses."""
        objectives = self.config.objectives
        predictions, vocabulary = output.predictions or {}, self.bare.vocabulary
        sums = predicted(predictions, output.matching, batch, vocabulary, objectives)
        shares = {name: loss / counts[name] for name, loss in sums.items()}
        total = _required(output.logit_scale) * 0
        for objective, weight in weights(objectives).items():
            occurring = [name for name in LOSSES[objective] if name in counts]
            for name in occurring:
                if weight and name in shares:
                    total = total + weight * shares[name] / len(occurring)
        return total, shares

    def _summed(self, shares: dict[str, float], counts: Mapping[str, float]) -> dict[str, float]:
        """The losses over all ranks; which of them there are is the same on every rank."""
        names = [name for name in shares if name.startswith("contrastive")] + list(counts)
        values = [shares.get(name, 0.0) for name in names]
        summed = dict(zip(names, sum_over_ranks(values, self.accelerator.device), strict=True))
        objectives, total = self.config.objectives, 0.0
        if objectives.contrastive is not None and "contrastive" in summed:
            total += objectives.contrastive.weight * summed["contrastive"]
        for objective, weight in weights(objectives).items():
            occurring = [name for name in LOSSES[objective] if name in counts]
            if weight and occurring:
                summed[objective] = sum(summed[name] for name in occurring) / len(occurring)
                total += weight * summed[objective]
        return {"loss": total, **summed}


def _nothing(batch: Batch) -> Batch:
    """A micro-batch of no samples, on the device of another; the model runs all its modules."""
    return Batch(num_samples=0, media={}, sample_N={}, group_N=batch.group_N[:0])


def _required(x: T | None) -> T:
    assert x is not None  # noqa: S101 - the model's forward always sets it
    return x
