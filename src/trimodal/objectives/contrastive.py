"""Contrast of every present pair of modalities, and of fused views against what they leave out.

loss, parts = contrastive(local, everyone, scale, bias, config, dimensions=(64, 256))
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.batch import Batch, Modality
from trimodal.config import ContrastiveConfig
from trimodal.objectives.losses import info_nce, sigmoid_contrast

FUSED = len(Modality)
PAIRS = ((0, 1), (0, 2), (1, 2), (FUSED, 0), (FUSED, 1), (FUSED, 2))
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
        everyone: the samples of all ranks, the candidates.
        scale: inverse temperature.
        bias: of the sigmoid loss.
        config: which loss.
        dimensions: prefixes of the embedding that are contrasted (Kusupati et al., 2022).

    Returns:
        The share, and the share of each pair by name.
    """
    positive_NM = local.group_N[:, None] == everyone.group_N[None, :]
    same_MM = everyone.group_N[:, None] == everyone.group_N[None, :]
    shares: dict[str, Tensor] = {}
    for a, b in PAIRS:
        lonely = config.loss == "sigmoid"
        directions = list(_directions(a, b, local, everyone, positive_NM, same_MM, lonely))
        if not directions:
            continue
        total = local.z_NSE.new_zeros(())
        for dim in dimensions:
            z_NSE = F.normalize(local.z_NSE[..., :dim], dim=-1)
            z_MSE = F.normalize(everyone.z_NSE[..., :dim], dim=-1)
            for query, key, rows_N, columns_M, count in directions:
                arguments = (z_NSE[:, query], z_MSE[:, key], positive_NM, columns_M, scale)
                if config.loss == "infonce":
                    loss_N = info_nce(*arguments)
                else:
                    loss_N = sigmoid_contrast(*arguments, bias)
                total = total + loss_N.where(rows_N, 0.0).sum() / count
        shares[f"{NAMES[a]}_{NAMES[b]}"] = total / (len(directions) * len(dimensions))
    if not shares:
        return local.z_NSE.sum() * 0, {}
    return torch.stack(list(shares.values())).mean(), shares


def _directions(
    a: int,
    b: int,
    local: Embeddings,
    everyone: Embeddings,
    positive_NM: Tensor,
    same_MM: Tensor,
    lonely: bool,
) -> Iterator[tuple[int, int, Tensor, Tensor, Tensor]]:
    """Query and key slot, local queries, candidates, and the number of queries over all ranks.

    A query without any positive counts only if `lonely`: its pairs are all negative.
    """
    for query, key in ((a, b), (b, a)):
        columns_M = everyone.column(key, query)
        queries_M = everyone.column(query, key) & (lonely | (same_MM & columns_M).any(1))
        count = queries_M.sum()
        if count > 0 and columns_M.any():
            rows_N = local.column(query, key) & (lonely | (positive_NM & columns_M).any(1))
            yield query, key, rows_N, columns_M, count
