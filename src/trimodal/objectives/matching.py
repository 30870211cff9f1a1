"""Tuples whose modalities may not belong together, drawn as a pure function of keys and sample.

tuples = draw_tuples(samples, config, "matching", seed, step)
matching = pack_tuples(samples, tuples)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trimodal.assembly import Members
from trimodal.batch import Matching, Modality, Sample
from trimodal.config import MatchingConfig
from trimodal.streams import digest, generator


@dataclass(frozen=True)
class Mismatch:
    """What is wrong in the tuple of one sample."""

    wrong: Members
    """The modalities that are to be other samples'; not all that it has, and maybe none."""
    draws: tuple[float, ...]
    """In [0, 1), for each modality; they decide whose."""
    seed: int
    """For dropout."""


def draw_tuples(
    samples: Sequence[Sample], config: MatchingConfig | None, *keys: str | int
) -> list[Mismatch | None]:
    """The tuple of each sample, None where it has none; every set partition is as likely.

    Three media have five partitions, two have two, as the five labels of OPT (arXiv 2107.00249).
    """
    if config is None or not config.weight:
        return [None] * len(samples)
    return [_draw(sample, config.rate, *keys) for sample in samples]


def _draw(sample: Sample, rate: float, *keys: str | int) -> Mismatch | None:
    rng = generator(*keys, sample.id)
    if len(sample.media) < 2 or rng.random() >= rate:
        return None
    present = sorted(sample.media)
    order = [present[int(j)] for j in rng.permutation(len(present))]
    if len(present) == len(Modality):
        count = int(rng.choice(3, p=(0.2, 0.6, 0.2)))
    else:
        count = int(rng.integers(2))
    seed = digest("dropout", *keys, sample.id) >> 1
    return Mismatch(frozenset(order[:count]), tuple(rng.random(len(Modality)).tolist()), seed)


def pack_tuples(samples: Sequence[Sample], tuples: Sequence[Mismatch | None]) -> Matching | None:
    """The tuples of the samples of a micro-batch; None if there is none."""
    drawn = [(i, mismatch) for i, mismatch in enumerate(tuples) if mismatch is not None]
    if not drawn:
        return None
    return Matching(
        sample_V=torch.tensor([i for i, _ in drawn]),
        members_V3=torch.tensor([[m in samples[i].media for m in Modality] for i, _ in drawn]),
        wrong_V3=torch.tensor([[m in mismatch.wrong for m in Modality] for _, mismatch in drawn]),
        draw_V3=torch.tensor([mismatch.draws for _, mismatch in drawn], dtype=torch.float64),
        group_N=torch.tensor([sample.group for sample in samples]),
        seed_V=torch.tensor([mismatch.seed for _, mismatch in drawn]),
    )
