"""Samples to a packed `Batch`: each medium once, masked copies behind them, and the trunk's views.

batch = assemble(samples, fused=[frozenset({Modality.TEXT, Modality.SPEECH}), None])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from trimodal.batch import Batch, Medium, Modality, Sample, Target, pack_media
from trimodal.streams import digest
from trimodal.views import Part, View, pack_views
from trimodal.vocabulary import Vocabulary

Members = frozenset[Modality]


@dataclass(frozen=True)
class Masking:
    """A masked view of one sample: some tokens of one modality hidden, the others helping."""

    modality: Modality
    hidden_T: np.ndarray
    """bool, the hidden tokens, at least one."""
    helpers: Members
    """The other modalities that the view observes in full."""


@dataclass(frozen=True)
class Writing:
    """A target view of one sample: what is to be predicted whole, and what it observes."""

    target: Target
    members: Members
    """Media of the sample that the view observes; without any, it observes nothing."""
    extra: tuple[Medium, ...] = ()
    """Media that are no part of the sample, such as a question, and are observed too."""
    hidden_T: np.ndarray | None = None
    """bool, the masked codes, at least one; None for a text, which is predicted left to right."""

    def cost(self, sample: Sample) -> int:
        """Tokens that are computed for it at most."""
        observed = sum(sample.media[m].num_tokens for m in self.members)
        extra = sum(medium.num_tokens for medium in self.extra)
        # a summary of each medium, or the token that stands for none
        beside = max(1, len(self.members) + len(self.extra))
        return observed + 2 * extra + beside + len(self.target.prompt) + len(self.target.ids)


@dataclass
class _Media:
    """The media of one modality in the order in which they are packed."""

    media: list[Medium] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    hidden: dict[int, np.ndarray] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)

    def add(self, medium: Medium, seed: int | None) -> int:
        self.media.append(medium)
        if seed is not None:
            self.seeds.append(seed)
        return len(self.media) - 1


class _Seeds:
    """Of dropout, for what a sample is seen as; without keys there are none."""

    def __init__(self, sample: Sample, keys: Sequence[str | int]) -> None:
        self.keys = (*keys, sample.id) if keys else ()

    def of(self, *role: str | int) -> int | None:
        return digest("dropout", *self.keys, *role) >> 1 if self.keys else None


def whole(sample: Sample) -> Members | None:
    """The fused view of all that a sample has; None if that is one modality."""
    return frozenset(sample.media) if len(sample.media) > 1 else None


def embedding_cost(sample: Sample) -> int:
    """Tokens computed to embed it at most: by its encoders, and if it has several by the trunk."""
    return sample.num_tokens if whole(sample) is None else 2 * sample.num_tokens + len(sample.media)


def assemble(
    samples: Sequence[Sample],
    fused: Sequence[Members | None] = (),
    masked: Sequence[Masking | None] = (),
    written: Sequence[Sequence[Writing]] = (),
    *,
    summaries: bool,
    keys: Sequence[str | int] = (),
) -> Batch:
    """Pack samples into one batch.

    Args:
        samples: at least one.
        fused: for each sample the modalities of its fused view, None for no such view.
        masked: for each sample its masked view, None for no such view.
        written: for each sample its target views.
        summaries: whether views see the embedding of a medium, see `ModelConfig.summaries`.
        keys: of the draws of dropout, which then are pure functions of them and of the sample;
            none leaves them to torch.
    """
    packs: dict[Modality, _Media] = {}
    place: list[dict[Modality, int]] = []
    seeds = [_Seeds(sample, keys) for sample in samples]
    for i, sample in enumerate(samples):
        place.append({})
        for modality, medium in sample.media.items():
            pack = packs.setdefault(modality, _Media())
            place[i][modality] = pack.add(medium, seeds[i].of("medium", int(modality)))
            pack.samples.append(i)
    views = [
        View(_parts(members, place[i]), i, members=members, seed=seeds[i].of("fused"))
        for i, members in enumerate(fused)
        if members
    ]
    for i, masking in enumerate(masked):
        if masking is not None:
            views.append(_masked_view(packs, place[i], samples[i], masking, i, seeds[i]))
    for i, writings in enumerate(written):
        for number, writing in enumerate(writings):
            views.append(_target_view(packs, place[i], writing, i, seeds[i], number))
    media = {m: pack_media(packs[m].media, packs[m].hidden, packs[m].seeds) for m in sorted(packs)}
    return Batch(
        num_samples=len(samples),
        media=media,
        sample_N={m: torch.tensor(packs[m].samples, dtype=torch.int64) for m in sorted(packs)},
        views=pack_views(views, media, summaries=summaries) if views else None,
        group_N=torch.tensor([sample.group for sample in samples], dtype=torch.int64),
        ids=tuple(sample.id for sample in samples),
    )


def _parts(members: Members, place: Mapping[Modality, int]) -> list[Part]:
    return [(m, place[m]) for m in sorted(members)]


def _masked_view(
    packs: dict[Modality, _Media],
    place: Mapping[Modality, int],
    sample: Sample,
    masking: Masking,
    index: int,
    seeds: _Seeds,
) -> View:
    clean = sample.media[masking.modality]
    copy = packs[masking.modality].add(hide(clean, masking.hidden_T), seeds.of("copy"))
    packs[masking.modality].hidden[copy] = masking.hidden_T
    observed = masking.helpers | {masking.modality}
    parts = _parts(observed, {**place, masking.modality: copy})
    return View(parts, index, masked=(clean, masking.hidden_T), seed=seeds.of("masked"))


def _target_view(
    packs: dict[Modality, _Media],
    place: Mapping[Modality, int],
    writing: Writing,
    index: int,
    seeds: _Seeds,
    number: int,
) -> View:
    parts = _parts(writing.members, place)
    for medium in writing.extra:
        pack = packs.setdefault(medium.modality, _Media())
        parts.append((medium.modality, pack.add(medium, seeds.of("extra", number, len(parts)))))
    seed = seeds.of("target", number)
    return View(parts, index, target=writing.target, hidden_T=writing.hidden_T, seed=seed)


def hide(medium: Medium, hidden_T: np.ndarray) -> Medium:
    """The medium without the features of its hidden tokens; text gets the mask token there."""
    mask = torch.from_numpy(hidden_T)
    if medium.modality is Modality.TEXT:
        return replace(
            medium, features=medium.features.masked_fill(mask, Vocabulary.mask_id(Modality.TEXT))
        )
    rows = mask.repeat_interleave(len(medium.features) // medium.num_tokens)
    return replace(medium, features=medium.features.masked_fill(rows[:, None], 0.0))
