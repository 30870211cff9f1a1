"""Which views the trunk gets of each sample, drawn as a pure function of (seed, step, sample).

plan = plan_views(samples, config.objectives, "views", seed, step)
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from trimodal.assembly import Masking, Members
from trimodal.batch import Medium, Modality, Sample
from trimodal.config import (
    CausalConfig,
    Condition,
    MaskedConfig,
    ObjectivesConfig,
    TargetConfig,
)
from trimodal.streams import generator

HELPER_RATE = 0.75
"""How often another modality of a sample helps to predict what is hidden in one."""
SINGLE_RATE = 0.5
"""How often a target is predicted from a single modality, whatever else there is."""
PICTURE_RATE = 0.75
"""How often a question is about the picture alone."""


@dataclass(frozen=True)
class Wish:
    """A target view that a sample is to get; the dataset knows the target."""

    modality: Modality
    members: Members
    kin: bool = False
    """The target is not the sample's own medium but another one of the same meaning."""
    answer: bool = False
    """The target is the answer to the sample's question."""
    again: tuple[int, ...] = ()
    """What tells its random choices from those of a wish before it for a like target."""


@dataclass(frozen=True)
class Plan:
    """The views of samples, in their order."""

    fused: list[Members | None] = field(default_factory=list)
    masked: list[Masking | None] = field(default_factory=list)
    wishes: list[list[Wish]] = field(default_factory=list)


def plan_views(samples: Sequence[Sample], config: ObjectivesConfig, *keys: str | int) -> Plan:
    """The fused, the masked and the target views of each sample."""
    plan = Plan()
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
        if sample.media and masked_draw < masked_rate and config.masked is not None:
            masking = _draw_masking(sample, config.masked, rng)
        plan.fused.append(members)
        plan.masked.append(masking)
        plan.wishes.append(_draw_wishes(sample, config, generator("wishes", *keys, sample.id)))
    return plan


def _draw_wishes(sample: Sample, config: ObjectivesConfig, rng: np.random.Generator) -> list[Wish]:
    wishes: list[Wish | None] = []
    target, causal = config.target, config.causal
    if target and target.weight and rng.random() < target.rate:
        wishes.append(_draw_wish(sample, map(Modality.of, sorted(target.modalities)), target, rng))
    if causal and causal.weight:
        for number in range(math.floor(causal.rate) + (rng.random() < causal.rate % 1)):
            again = (number,) if number else ()
            wishes.append(_draw_text_wish(sample, causal, again, rng))
    return [wish for wish in wishes if wish is not None]


def _draw_text_wish(
    sample: Sample, config: CausalConfig, again: tuple[int, ...], rng: np.random.Generator
) -> Wish | None:
    if sample.asks and rng.random() < config.answers:
        return Wish(Modality.TEXT, _draw_context(sample, rng), answer=True, again=again)
    wish = _draw_wish(sample, (Modality.TEXT,), config, rng)
    return wish and replace(wish, again=again)


def _draw_wish(
    sample: Sample,
    modalities: Iterable[Modality],
    config: TargetConfig | CausalConfig,
    rng: np.random.Generator,
) -> Wish | None:
    """A target among those that the sample or its kin has, and what it is predicted from."""
    possible = [m for m in modalities if m in sample.media or m in sample.kin]
    if not possible:
        return None
    modality = possible[int(rng.integers(len(possible)))]
    observable = [m for m in sorted(sample.media) if m is not modality or m in sample.kin]
    dropped = rng.random() < config.drop_condition
    members = frozenset() if dropped else _draw_condition(observable, config.conditions, rng)
    if members is None:
        return None
    kin = modality in members or modality not in sample.media
    return Wish(modality, members, kin)


def _draw_context(sample: Sample, rng: np.random.Generator) -> Members:
    """What a question is asked about: mostly the picture, if there is one."""
    seen = [m for m in sorted(sample.media) if m is not Modality.TEXT]
    if Modality.VISION in seen and rng.random() < PICTURE_RATE:
        return frozenset({Modality.VISION})
    return _draw_subset(seen, rng) if seen else frozenset()


def _draw_condition(
    observable: Sequence[Modality], weights: Mapping[Condition, float], rng: np.random.Generator
) -> Members | None:
    """What a target is predicted from; None if none of what has a weight can be observed."""
    if not weights:
        return _draw_subset(observable, rng) if observable else frozenset()
    named = {frozenset(map(Modality.of, name.split("+"))): w for name, w in weights.items()}
    possible = {members: w for members, w in named.items() if w and members <= set(observable)}
    if not possible:
        return None
    shares = np.array(list(possible.values()))
    return list(possible)[int(rng.choice(len(shares), p=shares / shares.sum()))]


def _draw_subset(modalities: Sequence[Modality], rng: np.random.Generator) -> Members:
    """One of the modalities, or any of their subsets that is not empty."""
    single = frozenset({modalities[int(rng.integers(len(modalities)))]})
    sizes = range(1, len(modalities) + 1)
    choices = [frozenset(c) for size in sizes for c in combinations(modalities, size)]
    return single if rng.random() < SINGLE_RATE else choices[int(rng.integers(len(choices)))]


def draw_hidden_codes(size: int, *keys: str | int) -> np.ndarray:
    """Which of a target's codes are masked, (size,) bool, at least one.

    The ratio is the cosine of an even draw, so that most are hidden mostly (Chang et al., 2022).
    """
    rng = generator("codes", *keys)
    count = max(1, math.ceil(size * math.cos(math.pi / 2 * rng.random())))
    hidden = np.zeros(size, dtype=bool)
    hidden[rng.permutation(size)[:count]] = True
    return hidden


def _draw_members(sample: Sample, rng: np.random.Generator) -> Members:
    present = sorted(sample.media)
    choices = [frozenset(c) for size in (2, 3) for c in combinations(present, size)]
    return choices[int(rng.integers(len(choices)))]


def _draw_masking(sample: Sample, config: MaskedConfig, rng: np.random.Generator) -> Masking:
    present = sorted(sample.media)
    modality = present[int(rng.integers(len(present)))]
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
