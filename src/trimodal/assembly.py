"""Samples to a packed `Batch`: each medium once, masked copies behind them, and the trunk's views.

batch = assemble(samples, fused=[frozenset({Modality.TEXT, Modality.SPEECH}), None])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from trimodal.batch import (
    Batch,
    MediaBatch,
    Medium,
    Modality,
    Prediction,
    Route,
    Sample,
    TokenBatch,
    Views,
    pack_media,
)
from trimodal.vocabulary import Vocabulary
from trimodal_kernels import Segments

Members = frozenset[Modality]


@dataclass(frozen=True)
class Masking:
    """A masked view of one sample: some tokens of one modality hidden, the others helping."""

    modality: Modality
    hidden_T: np.ndarray
    """bool, the hidden tokens, at least one."""
    helpers: Members
    """The other modalities that the view observes in full."""


@dataclass
class _Media:
    """The media of one modality in the order in which they are packed."""

    media: list[Medium] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    hidden: dict[int, np.ndarray] = field(default_factory=dict)

    def add(self, medium: Medium) -> int:
        self.media.append(medium)
        return len(self.media) - 1


@dataclass
class _View:
    """Media (modality, index) of one view, and what it is for."""

    parts: list[tuple[Modality, int]]
    sample: int
    members: Members | None = None
    masking: Masking | None = None
    clean: Medium | None = None


def whole(sample: Sample) -> Members | None:
    """The fused view of all that a sample has; None if that is one modality."""
    return frozenset(sample.media) if len(sample.media) > 1 else None


def embedding_cost(sample: Sample) -> int:
    """Tokens that are computed to embed it: once by its encoders, of a fused view by the trunk."""
    return sample.num_tokens * (1 if whole(sample) is None else 2)


def assemble(
    samples: Sequence[Sample],
    fused: Sequence[Members | None] = (),
    masked: Sequence[Masking | None] = (),
) -> Batch:
    """Pack samples into one batch.

    Args:
        samples: at least one.
        fused: for each sample the modalities of its fused view, None for no such view.
        masked: for each sample its masked view, None for no such view.
    """
    packs: dict[Modality, _Media] = {}
    place: list[dict[Modality, int]] = []
    for i, sample in enumerate(samples):
        place.append({})
        for modality, medium in sample.media.items():
            pack = packs.setdefault(modality, _Media())
            place[i][modality] = pack.add(medium)
            pack.samples.append(i)
    views = [
        _View([(m, place[i][m]) for m in sorted(members)], i, members=members)
        for i, members in enumerate(fused)
        if members
    ]
    for i, masking in enumerate(masked):
        if masking is not None:
            views.append(_masked_view(packs, place[i], samples[i], masking, i))
    media = {m: pack_media(packs[m].media, packs[m].hidden) for m in sorted(packs)}
    return Batch(
        num_samples=len(samples),
        media=media,
        sample_N={m: torch.tensor(packs[m].samples, dtype=torch.int64) for m in sorted(packs)},
        views=_pack_views(views, media) if views else None,
        group_N=torch.tensor([sample.group for sample in samples], dtype=torch.int64),
    )


def _masked_view(
    packs: dict[Modality, _Media],
    place: Mapping[Modality, int],
    sample: Sample,
    masking: Masking,
    index: int,
) -> _View:
    clean = sample.media[masking.modality]
    copy = packs[masking.modality].add(hide(clean, masking.hidden_T))
    packs[masking.modality].hidden[copy] = masking.hidden_T
    observed = sorted(masking.helpers | {masking.modality})
    parts = [(m, copy if m is masking.modality else place[m]) for m in observed]
    return _View(parts, index, masking=masking, clean=clean)


def hide(medium: Medium, hidden_T: np.ndarray) -> Medium:
    """The medium without the features of its hidden tokens; text gets the mask token there."""
    mask = torch.from_numpy(hidden_T)
    if medium.modality is Modality.TEXT:
        return replace(
            medium, features=medium.features.masked_fill(mask, Vocabulary.mask_id(Modality.TEXT))
        )
    rows = mask.repeat_interleave(len(medium.features) // medium.num_tokens)
    return replace(medium, features=medium.features.masked_fill(rows[:, None], 0.0))


def _pack_views(views: Sequence[_View], media: Mapping[Modality, MediaBatch]) -> Views:
    bounds = {m: batch.tokens.cu_seqlens.numpy() for m, batch in media.items()}
    offsets: dict[Modality, int] = {}
    for modality in sorted(media):
        offsets[modality] = sum(media[m].tokens.num_tokens for m in offsets)
    sources, lengths = [], []
    for view in views:
        rows = [np.arange(bounds[m][i], bounds[m][i + 1]) + offsets[m] for m, i in view.parts]
        sources.extend(rows)
        lengths.append(sum(map(len, rows)))
    source_T = torch.from_numpy(np.concatenate(sources))
    everything = [media[m].tokens for m in sorted(media)]
    tokens = TokenBatch(
        positions_T2=torch.cat([t.positions_T2 for t in everything])[source_T],
        modality_T=torch.cat([t.modality_T for t in everything])[source_T],
        route_T=torch.full((len(source_T),), int(Route.OBSERVED)),
        cu_seqlens=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])),
        segments=Segments.from_lengths(lengths),
    )
    fused = [v for v, view in enumerate(views) if view.members is not None]
    return Views(
        source_T=source_T,
        tokens=tokens,
        fused_V=torch.tensor(fused, dtype=torch.int64),
        fused_sample_V=torch.tensor([views[v].sample for v in fused], dtype=torch.int64),
        members_V3=torch.tensor(
            [[m in (views[v].members or ()) for m in Modality] for v in fused], dtype=torch.bool
        ).view(-1, len(Modality)),
        predictions=_predictions(views, media, tokens.cu_seqlens),
    )


def _predictions(
    views: Sequence[_View], media: Mapping[Modality, MediaBatch], cu_seqlens: Tensor
) -> dict[Modality, Prediction]:
    tokens: dict[Modality, list[np.ndarray]] = {}
    targets: dict[Modality, list[Tensor]] = {}
    for view, start in zip(views, cu_seqlens.tolist(), strict=False):
        if view.masking is None or view.clean is None:
            continue
        modality, hidden = view.masking.modality, view.masking.hidden_T
        before = 0
        for other, i in view.parts:
            if other is modality:
                break
            bounds = media[other].tokens.cu_seqlens
            before += int(bounds[i + 1] - bounds[i])
        tokens.setdefault(modality, []).append(np.flatnonzero(hidden) + start + before)
        clean = view.clean.features
        if modality is not Modality.TEXT:
            clean = clean.reshape(view.clean.num_tokens, -1)
        targets.setdefault(modality, []).append(clean[torch.from_numpy(hidden)])
    return {
        m: Prediction(torch.from_numpy(np.concatenate(tokens[m])), torch.cat(targets[m]))
        for m in sorted(tokens)
    }
