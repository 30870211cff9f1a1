"""Contrast of every present pair of modalities, and of fused views against what they leave out.

loss, parts = contrastive(local, everyone, scale, bias, config, dimensions=(64, 256))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.batch import Batch, Modality
from trimodal.config import ContrastiveConfig
from trimodal_kernels import (
    info_nce,
    info_nce_two_sided,
    sigmoid_contrast,
    sigmoid_contrast_two_sided,
)

FUSED = len(Modality)
PAIRS = ((0, 1), (0, 2), (1, 2), (FUSED, 0), (FUSED, 1), (FUSED, 2))
CONTRASTS = {
    "infonce": (info_nce, info_nce_two_sided),
    "sigmoid": (sigmoid_contrast, sigmoid_contrast_two_sided),
}
NAMES = (*(modality.data_name for modality in Modality), "fused")


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of N samples and what says which belong together."""

    z_NSE: Tensor
    """(N, 4, E): vision, text, speech, fused."""
    present_NS: Tensor
    """bool (N, 4)."""
    members_N3: Tensor
    """bool (N, 3), the modalities in each fused view."""
    group_N: Tensor
    """int64 (N,)."""

    def column(self, slot: int, other: int) -> Tensor:
        """Bool (N,): samples whose `slot` may be contrasted with `other`.

        A fused view that observes `other` would be contrasted with a part of itself; only one that
        observes everything its sample has is, for nothing is left out of it.
        """
        if slot != FUSED:
            return self.present_NS[:, slot]
        whole_N = (self.members_N3 == self.present_NS[:, :FUSED]).all(1)
        return self.present_NS[:, FUSED] & (whole_N | ~self.members_N3[:, other])


def of_batches(z_NSE: Tensor, batches: Sequence[Batch]) -> Embeddings:
    """The embeddings of micro-batches, whose rows lie end to end in `z_NSE`."""
    present, members, groups = [], [], []
    for batch in batches:
        here = torch.zeros(batch.num_samples, FUSED + 1, dtype=torch.bool, device=z_NSE.device)
        part = torch.zeros(batch.num_samples, FUSED, dtype=torch.bool, device=z_NSE.device)
        for modality, sample_N in batch.sample_N.items():
            here[sample_N, int(modality)] = True
        if batch.views is not None:
            here[batch.views.fused_sample_V, FUSED] = True
            part[batch.views.fused_sample_V] = batch.views.members_V3
        present.append(here)
        members.append(part)
        groups.append(batch.group_N)
    return Embeddings(z_NSE, torch.cat(present), torch.cat(members), torch.cat(groups))


def contrastive(
    local: Embeddings,
    everyone: Embeddings,
    scale: Tensor,
    bias: Tensor,
    config: ContrastiveConfig,
    dimensions: Sequence[int],
) -> tuple[Tensor, dict[str, Tensor]]:
    """This rank's share of the loss: the shares of all ranks add up to it.

    A pair is the mean over its queries in both directions, normalised by their number over all
    ranks; the loss is the mean over the pairs that occur, and over the Matryoshka prefixes.

    Args:
        local: this rank's samples, the queries.
        everyone: the samples of all ranks, the candidates; of the same tensor if these are they.
        scale: inverse temperature.
        bias: of the sigmoid loss.
        config: which loss.
        dimensions: prefixes of the embedding that are contrasted (Kusupati et al., 2022).

    Returns:
        The share, and the share of each pair by name.
    """
    own = _prefixes(local, dimensions)
    is_alone = everyone.z_NSE is local.z_NSE
    every = own if is_alone else _prefixes(everyone, dimensions)
    one_way, both_ways = CONTRASTS[config.loss]
    temperature = (scale,) if config.loss == "infonce" else (scale, bias)
    shares: dict[str, Tensor] = {}
    for a, b in PAIRS:
        all_a, all_b = _Side.of(everyone, a, b), _Side.of(everyone, b, a)
        counts = _queries(all_a, all_b, config), _queries(all_b, all_a, config)
        if 0 in counts:
            continue
        own_a, own_b = _Side.of(local, a, b), _Side.of(local, b, a)
        total = local.z_NSE.new_zeros(())
        for z_SNE, z_SME in zip(own, every, strict=True):
            if is_alone:
                losses = both_ways(*_arguments(own_a, own_b, z_SNE, z_SME), *temperature)
            else:
                sides = (own_a, all_b), (own_b, all_a)
                losses = [one_way(*_arguments(*x, z_SNE, z_SME), *temperature) for x in sides]
            total = total + sum(x.sum() / count for x, count in zip(losses, counts, strict=True))
        shares[f"{NAMES[a]}_{NAMES[b]}"] = total / (2 * len(dimensions))
    if not shares:
        return local.z_NSE.sum() * 0, {}
    return torch.stack(list(shares.values())).mean(), shares


Slots = tuple[Tensor, ...]
"""Unit-norm (N, E) of each slot."""


def _prefixes(embeddings: Embeddings, dimensions: Sequence[int]) -> list[Slots]:
    z_NSE = embeddings.z_NSE
    return [F.normalize(z_NSE[..., :dim], dim=-1).unbind(1) for dim in dimensions]


class _Side(NamedTuple):
    """The samples that one side of a pair has."""

    slot: int
    sample_K: Tensor
    group_K: Tensor

    @classmethod
    def of(cls, embeddings: Embeddings, slot: int, other: int) -> "_Side":
        sample_K = embeddings.column(slot, other).nonzero().squeeze(1)
        return cls(slot, sample_K, embeddings.group_N.index_select(0, sample_K))

    def of_slots(self, slots: Slots) -> Tensor:
        return slots[self.slot].index_select(0, self.sample_K)


def _queries(side: _Side, keys: _Side, config: ContrastiveConfig) -> int:
    """How many samples of a side count over all ranks.

    A query without any positive has no softmax loss; its pairs are all negative to the sigmoid.
    """
    if config.loss == "sigmoid":
        return len(side.group_K) if len(keys.group_K) else 0
    return int(torch.isin(side.group_K, keys.group_K).sum())


def _arguments(queries: _Side, keys: _Side, z_SNE: Slots, z_SME: Slots) -> tuple[Tensor, ...]:
    return queries.of_slots(z_SNE), keys.of_slots(z_SME), queries.group_K, keys.group_K
