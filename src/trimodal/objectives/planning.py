"""Which views the trunk gets of each sample, drawn as a pure function of (seed, step, sample).

fused, masked = plan_views(samples, config.objectives, "views", seed, step)
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from trimodal.assembly import Masking, Members
from trimodal.batch import Medium, Modality, Sample
from trimodal.config import MaskedConfig, ObjectivesConfig
from trimodal.streams import generator

HELPER_RATE = 0.75
"""How often another modality of a sample helps to predict what is hidden in one."""


def plan_views(
    samples: Sequence[Sample], config: ObjectivesConfig, *keys: str | int
) -> tuple[list[Members | None], list[Masking | None]]:
    """The fused and the masked view of each sample, None where it gets none."""
    fused: list[Members | None] = []
    masked: list[Masking | None] = []
    fused_rate = (
        config.contrastive.fused if config.contrastive and config.contrastive.weight else 0.0
    )
    masked_rate = config.masked.rate if config.masked and config.masked.weight else 0.0
    for sample in samples:
        rng = generator(*keys, sample.id)
        fused_draw, masked_draw = rng.random(2)
        members = masking = None
        if fused_draw < fused_rate and len(sample.media) > 1:
            members = _draw_members(sample, rng)
        if masked_draw < masked_rate and config.masked is not None:
            masking = _draw_masking(sample, config.masked, rng)
        fused.append(members)
        masked.append(masking)
    return fused, masked


def _draw_members(sample: Sample, rng: np.random.Generator) -> Members:
    present = sorted(sample.media)
    choices = [frozenset(c) for size in (2, 3) for c in combinations(present, size)]
    return choices[rng.integers(len(choices))]


def _draw_masking(sample: Sample, config: MaskedConfig, rng: np.random.Generator) -> Masking:
    present = sorted(sample.media)
    modality = present[rng.integers(len(present))]
    others = [m for m in present if m is not modality]
    helpers = frozenset(m for m in others if rng.random() < HELPER_RATE)
    return Masking(modality, draw_hidden(sample.media[modality], config, rng), helpers)


def draw_hidden(medium: Medium, config: MaskedConfig, rng: np.random.Generator) -> np.ndarray:
    """Which tokens to hide, (T,) bool, at least one: blocks of patches, pieces, spans of frames."""
    rows, columns = medium.grid
    if medium.modality is Modality.VISION:
        blocks = _draw(
            -(-rows // config.vision_block) * -(-columns // config.vision_block),
            config.vision_ratio,
            rng,
        ).reshape(-1, -(-columns // config.vision_block))
        grown = blocks.repeat(config.vision_block, 0).repeat(config.vision_block, 1)
        return grown[:rows, :columns].reshape(-1).copy()
    if medium.modality is Modality.TEXT:
        return _draw(medium.num_tokens, config.text_ratio, rng)
    return _draw_spans(medium.num_tokens, config.speech_span, config.speech_ratio, rng)


def _draw_spans(size: int, span: int, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Whole spans that do not overlap, every arrangement equally likely; all of a shorter size."""
    hidden = np.zeros(size, dtype=bool)
    count = min(max(1, round(size * ratio / span)), size // span)
    if count == 0:
        return ~hidden
    # choosing among what is left when every span shrinks to one token arranges the spans
    places = np.sort(rng.permutation(size - count * (span - 1))[:count])
    for i, place in enumerate(places):
        hidden[place + i * (span - 1) :][:span] = True
    return hidden


def _draw(size: int, ratio: float, rng: np.random.Generator) -> np.ndarray:
    hidden = np.zeros(size, dtype=bool)
    hidden[rng.permutation(size)[: max(1, round(size * ratio))]] = True
    return hidden
