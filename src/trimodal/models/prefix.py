"""What several samples observe and are asked, computed once for all that is decoded after it.

prefix = Prefix(model, samples, writings, rooms=[16, 16])
h_TD = prefix.extend([0, 1], ids, positions)
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.assembly import Writing, assemble
from trimodal.batch import Route, Sample, TokenBatch, to_device
from trimodal.models.cache import KeyValueCache
from trimodal_kernels import Kind, Segments

if TYPE_CHECKING:
    from trimodal.models.trimodal import TrimodalModel


class Prefix:
    """Cached keys and values of observed tokens and prompts, a sequence for each writing.

    Args:
        model: in evaluation mode.
        samples: what is observed.
        writings: of each sample, with targets that have no ids yet and one modality in all.
        rooms: ids that will be decoded at most, for each sample.
        cache: that of other prefixes, which then can be extended together with this one.
    """

    def __init__(
        self,
        model: "TrimodalModel",
        samples: Sequence[Sample],
        writings: Sequence[Writing],
        rooms: Sequence[int],
        cache: KeyValueCache | None = None,
    ) -> None:
        self.model = model
        self.modality = writings[0].target.modality
        asked = [[writing] for writing in writings]
        batch = assemble(samples, written=asked, summaries=model.architecture.summaries)
        batch = to_device(batch, model.device)
        views = batch.views
        assert views is not None  # noqa: S101 - every sample has a writing
        bounds = views.tokens.cu_seqlens.tolist()
        self.lengths = [b - a for a, b in pairwise(bounds)]
        x_TD = model.enter(model.observe(batch.media), views)
        sizes = [length + room for length, room in zip(self.lengths, rooms, strict=True)]
        self.cache = cache or KeyValueCache(model.architecture.trunk, like=x_TD)
        self.starts = self.cache.take(sizes)
        slots, rows = [], []
        for i, start in enumerate(bounds[:-1]):
            slots.append(self.starts[i] + np.arange(self.lengths[i]))
            shift = self.starts[i] - start
            rows += [
                (q0, q1, k0 + shift, k1 + shift, kind)
                for q0, q1, k0, k1, kind in views.tokens.segments.table_S5.tolist()
                if start <= k0 < bounds[i + 1]
            ]
        try:
            h_TD = self._trunk(x_TD, views.tokens.positions_T2, slots, rows)
        except BaseException:
            self.cache.give(self.starts)
            raise
        self.last_ND = h_TD[torch.tensor(bounds[1:], device=h_TD.device) - 1]

    def extend(
        self,
        sequences: Sequence[int],
        ids: Sequence[Tensor],
        positions: Sequence[np.ndarray],
        *,
        keep: bool,
    ) -> Tensor:
        """Trunk outputs (T, D) of ids behind what some of the sequences hold so far.

        Args:
            sequences: which, each once.
            ids: (n,) unified ids of each.
            positions: (n, 2) of each, see `Target.positions`.
            keep: what comes next stands behind these ids; otherwise it replaces them.
        """
        return extend([(self, i) for i in sequences], ids, positions, keep=keep)

    def _trunk(
        self,
        x_TD: Tensor,
        positions_T2: Tensor,
        slots: Sequence[np.ndarray],
        rows: Sequence[Sequence[int]],
    ) -> Tensor:
        size, device = len(x_TD), x_TD.device
        tokens = TokenBatch(
            positions_T2=positions_T2,
            modality_T=torch.full((size,), int(self.modality), device=device),
            route_T=torch.full((size,), int(Route.TARGET), device=device),
            cu_seqlens=torch.tensor([0, *accumulate(map(len, slots))], device=device),
            segments=Segments.from_rows(rows, size, self.cache.num_slots).to(device),
        )
        slot_T = torch.from_numpy(np.concatenate(slots)).to(device)
        return self.model.trunk(x_TD, tokens, self.cache.at(slot_T))


def extend(
    sequences: Sequence[tuple[Prefix, int]],
    ids: Sequence[Tensor],
    positions: Sequence[np.ndarray],
    *,
    keep: bool,
) -> Tensor:
    """See `Prefix.extend`; the sequences are of prefixes of one modality with one cache."""
    first = sequences[0][0]
    slots, rows, at = [], [], 0
    for (prefix, i), new in zip(sequences, ids, strict=True):
        start, length, size = prefix.starts[i], prefix.lengths[i], len(new)
        slots.append(start + length + np.arange(size))
        rows.append((at, at + size, start, start + length + size, Kind.FULL))
        at += size
        prefix.lengths[i] += size if keep else 0
    model, device = first.model, first.model.device
    positions_T2 = torch.from_numpy(np.concatenate(positions)).to(device)
    x_TD = F.embedding(torch.cat(list(ids)).to(device), model.table)
    kind_D = model.modality_embedding.weight[int(first.modality)]
    x_TD = x_TD + kind_D + model.route_embedding.weight[int(Route.TARGET)]
    return first._trunk(x_TD, positions_T2, slots, rows)


def null_writing(writing: Writing) -> Writing:
    """The same without anything observed, for guidance."""
    return Writing(writing.target, frozenset())
