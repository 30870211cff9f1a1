"""Ids behind a prefix: texts from left to right, codes in any order, the surest first.

texts = finish(decode_texts(prefix, [[], []], Decoding(), seeds=[0, 1]))
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from trimodal.batch import Modality, Target
from trimodal.errors import ConfigError, NumericError
from trimodal.models.prefix import Prefix
from trimodal.streams import generator
from trimodal.vocabulary import Special

T = TypeVar("T")
Steps = Generator[Mapping[int, Sequence[int]], None, T]
"""Work that pauses after each step, and then says what each output that changed is so far; it ends
with a `T`."""


def finish(steps: Steps[T]) -> T:
    """Take all steps; the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How ids are chosen.

    Raises:
        ConfigError: a value that cannot be.
    """

    temperature: float = 1.0
    """Of the draws; 0 takes the most likely id."""
    top_p: float = 1.0
    """Draw among the most likely ids that have this probability together."""
    guidance: float = 1.0
    """How far to go from what nothing observed makes likely (Ho and Salimans, 2022); 1 is off."""
    steps: int = 8
    """In which pictures and speech are decoded."""
    choice_temperature: float = 1.0
    """Of the noise in which code is surest; it falls to 0 over the steps."""
    max_tokens: int = 64
    """Pieces of a text at most."""

    def __post_init__(self) -> None:
        for name in ("temperature", "guidance", "choice_temperature"):
            value = getattr(self, name)
            if not (0 <= value < math.inf):
                raise ConfigError(f"{name}: must be at least 0, got {value}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: {self.top_p} is not in (0, 1]")
        for name in ("steps", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}")


def decode_texts(
    prefix: Prefix, begun: Sequence[Sequence[int]], decoding: Decoding, seeds: Sequence[int]
) -> Steps[list[list[int]]]:
    """The pieces of each text, left to right, without the end; a step is a piece of each.

    Args:
        prefix: N sequences, and if there is guidance the same N with nothing observed.
        begun: unified ids with which each text begins.
        decoding: how pieces are chosen.
        seeds: of the draws of each text; nothing else decides them.
    """
    size = len(begun)
    texts = [list(ids) for ids in begun]
    h_ND = _after_beginnings(prefix, texts)
    active = list(range(size))
    for step in range(decoding.max_tokens):
        log_p = _log_probabilities(prefix, prefix.model.continuations(h_ND), decoding)
        chosen = []
        for row, i in enumerate(active):
            rng = generator("text", seeds[i], step)
            chosen.append(_draw(log_p[row : row + 1], rng.random((1,)), decoding)[0])
        going = [row for row, piece in enumerate(chosen) if piece > 0]
        for row in going:
            texts[active[row]].append(int(Special.END_TEXT) + int(chosen[row]))
        active = [active[row] for row in going]
        yield {i: tuple(texts[i]) for i in active}
        if not active or step == decoding.max_tokens - 1:
            break
        h_ND = _append(prefix, active, texts, size)
    return texts


def _after_beginnings(prefix: Prefix, texts: Sequence[Sequence[int]]) -> Tensor:
    """The output behind what each text begins with; pieces enter one by one, as when decoded."""
    last_ND = prefix.last_ND.clone()
    size = len(texts)
    for at in range(max(map(len, texts), default=0)):
        rows = [i for i in range(len(last_ND)) if at < len(texts[i % size])]
        ids = [torch.tensor([texts[i % size][at]]) for i in rows]
        positions = [np.full((1, 2), at + 1)] * len(rows)
        last_ND[rows] = prefix.extend(rows, ids, positions, keep=True)
    return last_ND


def _append(
    prefix: Prefix, active: Sequence[int], texts: Sequence[Sequence[int]], size: int
) -> Tensor:
    """The output behind the newest piece of the texts that go on, guided copies behind them."""
    copies = len(prefix.lengths) // size
    rows = [i + size * copy for copy in range(copies) for i in active]
    ids = [torch.tensor([texts[i % size][-1]]) for i in rows]
    positions = [np.full((1, 2), len(texts[i % size])) for i in rows]
    return prefix.extend(rows, ids, positions, keep=True)


def _log_probabilities(prefix: Prefix, logits: Tensor, decoding: Decoding) -> np.ndarray:
    """(..., V) fp64 log-probabilities of what the tokenizers know, guided if there are copies.

    Raises:
        NumericError: the model is broken.
    """
    log_p = logits.double().log_softmax(-1)
    if not log_p.isfinite().all():
        raise NumericError("the model computed probabilities that are not finite")
    known = prefix.model.known_ids(prefix.modality)
    if decoding.guidance != 1:
        seen, unseen = log_p.chunk(2)
        log_p = unseen + decoding.guidance * (seen - unseen)
    return log_p[..., :known].log_softmax(-1).cpu().numpy()


def _draw(log_p_NV: np.ndarray, draws_N: np.ndarray, decoding: Decoding) -> np.ndarray:
    """(N,) ids by inversion of the distribution, so that a draw depends on its own row alone."""
    if decoding.temperature == 0:
        return log_p_NV.argmax(-1)
    below_NV = log_p_NV - log_p_NV.max(-1, keepdims=True)
    p_NV = np.exp(below_NV / decoding.temperature)
    p_NV /= p_NV.sum(-1, keepdims=True)
    order = np.argsort(-p_NV, axis=-1, kind="stable")
    sorted_NV = np.take_along_axis(p_NV, order, -1)
    before_NV = sorted_NV.cumsum(-1) - sorted_NV
    sorted_NV = np.where(before_NV < decoding.top_p, sorted_NV, 0)
    total_NV = sorted_NV.cumsum(-1)
    place_N = (total_NV <= draws_N[:, None] * total_NV[:, -1:]).sum(-1)
    last_N = (sorted_NV > 0).sum(-1) - 1
    return np.take_along_axis(order, np.minimum(place_N, last_N)[:, None], -1)[:, 0]


def draw_length(mean: float, log_deviation: float, decoding: Decoding, seed: int, most: int) -> int:
    """Codes of an utterance, from what the length head says of its logarithm."""
    noise = generator("length", seed).standard_normal() * min(1.0, decoding.temperature)
    return min(most, max(1, round(math.exp(min(mean + math.exp(log_deviation) * noise, 20)))))


def decode_codes(
    prefix: Prefix, targets: Sequence[Target], decoding: Decoding, seeds: Sequence[int]
) -> Steps[list[Target]]:
    """Fill in targets whose every code is masked (Chang et al., 2022, MaskGIT).

    In each step all masked codes are drawn, and the surest are kept: so many that the masked ones
    fall with a cosine to none. A step shows all that was drawn.

    Args:
        prefix: N sequences, and if there is guidance the same N with nothing observed.
        targets: of one modality.
        decoding: how codes are chosen.
        seeds: of the draws of each target; nothing else decides them.
    """
    modality: Modality = prefix.modality
    start = prefix.model.vocabulary.range_of(modality).start
    mask = prefix.model.vocabulary.mask_id(modality)
    ids = [target.ids.numpy().copy() for target in targets]
    positions = [target.positions() + 1 for target in targets]
    copies = len(prefix.lengths) // len(targets)
    for step in range(decoding.steps):
        given = [torch.from_numpy(i) for i in ids] * copies
        rows = list(range(len(prefix.lengths)))
        h_TD = prefix.extend(rows, given, positions * copies, keep=False)
        log_p_TV = _log_probabilities(prefix, prefix.model.code_logits(h_TD, modality), decoding)
        at, drawn = 0, {}
        for i, seed in enumerate(seeds):
            size = len(ids[i])
            rng = generator("codes", seed, step)
            whole_T, kept_T = _filled(
                log_p_TV[at : at + size], ids[i] - start, mask - start, step, decoding, rng
            )
            drawn[i] = tuple(whole_T + start)
            ids[i] = kept_T + start
            at += size
        yield drawn
    return [
        Target(t.modality, torch.from_numpy(i), t.grid, t.prompt)
        for t, i in zip(targets, ids, strict=True)
    ]


def _filled(
    log_p_TV: np.ndarray,
    local_T: np.ndarray,
    mask: int,
    step: int,
    decoding: Decoding,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """One step of one target: local ids, all of them and with `mask` where it is still masked."""
    size = len(local_T)
    drawn_T = _draw(log_p_TV, rng.random(size), decoding)
    left = 1 - (step + 1) / decoding.steps
    sure_T = log_p_TV[np.arange(size), drawn_T] + (
        decoding.choice_temperature * left * rng.gumbel(size=size)
    )
    masked_T = local_T == mask
    filled_T = np.where(masked_T, drawn_T, local_T)
    still = math.floor(size * math.cos(math.pi / 2 * (1 - left)))
    still = max(0, min(still, int(masked_T.sum()) - 1)) if left > 0 else 0
    sure_T = np.where(masked_T, sure_T, np.inf)
    kept_T = filled_T.copy()
    kept_T[np.argsort(sure_T, kind="stable")[:still]] = mask
    return filled_T, kept_T
