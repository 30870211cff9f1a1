"""Which modalities of a tuple belong together: views with other samples' media, chosen to be hard.

views, label_V = matching_views(matching, z_NSE, sample_N, scale)
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from trimodal.batch import Matching, Modality
from trimodal.views import View

NUM_CLASSES = 2 + len(Modality)
"""All belong together, one of the three does not, none do: the set partitions of three."""
ALL_DIFFER = NUM_CLASSES - 1


def matching_views(
    matching: Matching, z_NSE: Tensor, sample_N: Mapping[Modality, Tensor], scale: Tensor
) -> tuple[list[View], Tensor]:
    """A view for each tuple, and the set partition (V,) int64 that it is.

    A medium that is wrong comes from a sample of another group, drawn in proportion to the softmax
    of its similarity (Li et al., 2021, ALBEF) to what the tuple keeps. Where there is no such
    sample, the right one stays.
    """
    places = {m: np.asarray(n.cpu()) for m, n in sample_N.items()}
    z = z_NSE.detach().double().cpu().numpy()
    inverse = min(float(scale.detach()), 100.0)
    group_N = matching.group_N.cpu().numpy()
    views, labels = [], []
    seeds = [None] * len(matching.sample_V) if matching.seed_V is None else matching.seed_V.tolist()
    columns = (matching.sample_V, matching.members_V3, matching.wrong_V3, matching.draw_V3)
    rows = zip(*(c.cpu().numpy() for c in columns), seeds, strict=True)
    for i, members, wrong, draws, seed in rows:
        kept = next(m for m in Modality if members[m] and not wrong[m])
        taken = {int(group_N[i])}
        parts, replaced = [], []
        for modality in (m for m in Modality if members[m]):
            others = places[modality]
            place = int(np.flatnonzero(others == i)[0])
            if wrong[modality]:
                allowed = ~np.isin(group_N[others], list(taken))
                similar = inverse * (z[others, modality] @ z[i, kept])
                found = _drawn(similar, allowed, float(draws[modality]))
                if found is not None:
                    place = found
                    taken.add(int(group_N[others[place]]))
                    replaced.append(modality)
            parts.append((modality, place))
        views.append(View(parts, int(i), seed=seed))
        labels.append(partition(int(members.sum()), replaced))
    return views, torch.tensor(labels, dtype=torch.int64, device=z_NSE.device)


def partition(size: int, replaced: list[Modality]) -> int:
    """The class of a tuple of two or three media, of which some are each another sample's."""
    if not replaced:
        return 0
    if size == len(Modality) and len(replaced) == 1:
        return 1 + int(replaced[0])
    return ALL_DIFFER


def _drawn(similar_M: np.ndarray, allowed_M: np.ndarray, draw: float) -> int | None:
    """One of the allowed places by inversion of the softmax."""
    if not allowed_M.any():
        return None
    p_M = np.where(allowed_M, np.exp(similar_M - similar_M[allowed_M].max()), 0.0)
    total_M = p_M.cumsum()
    place = int(np.searchsorted(total_M, draw * total_M[-1], side="right"))
    return min(place, int(np.flatnonzero(allowed_M)[-1]))
