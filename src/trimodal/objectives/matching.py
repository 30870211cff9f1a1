"""Tuples whose modalities may not belong together, drawn as a pure function of keys and sample.

matching = draw_matching(samples, config, "matching", seed, step)
"""

from collections.abc import Sequence

import torch

from trimodal.batch import Matching, Modality, Sample
from trimodal.config import MatchingConfig
from trimodal.streams import generator


def draw_matching(
    samples: Sequence[Sample], config: MatchingConfig | None, *keys: str | int
) -> Matching | None:
    """Which tuples there are and what is wrong in each; every set partition is as likely.

    Three media have five partitions, two have two, as the five labels of OPT (arXiv 2107.00249).
    """
    if config is None or not config.weight:
        return None
    chosen, members, wrong, draws = [], [], [], []
    for i, sample in enumerate(samples):
        rng = generator(*keys, sample.id)
        if len(sample.media) < 2 or rng.random() >= config.rate:
            continue
        present = sorted(sample.media)
        order = [present[int(j)] for j in rng.permutation(len(present))]
        if len(present) == len(Modality):
            count = int(rng.choice(3, p=(0.2, 0.6, 0.2)))
        else:
            count = int(rng.integers(2))
        chosen.append(i)
        members.append([m in sample.media for m in Modality])
        wrong.append([m in order[:count] for m in Modality])
        draws.append(rng.random(len(Modality)).tolist())
    if not chosen:
        return None
    return Matching(
        sample_V=torch.tensor(chosen),
        members_V3=torch.tensor(members),
        wrong_V3=torch.tensor(wrong),
        draw_V3=torch.tensor(draws, dtype=torch.float64),
        group_N=torch.tensor([sample.group for sample in samples]),
    )
