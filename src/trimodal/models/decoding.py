"""Ids behind a prefix: texts from left to right, codes in any order, the surest first.

drafts = Texts(); drafts.begin([0, 1], prefix, targets, [Decoding()] * 2, seeds=[0, 1])
while len(drafts): grown, done = drafts.step()
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from trimodal.batch import Modality, Target
from trimodal.config import SCHEDULES
from trimodal.errors import ConfigError, NumericError
from trimodal.models.prefix import Prefix, extend
from trimodal.streams import generator
from trimodal.vocabulary import Special

V = TypeVar("V")
MAX_GUIDANCE = 100.0


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
    schedule: str = "cosine"
    """How the masked codes fall to none over the steps: along a cosine, which keeps few codes at
    first, or by the same number in each step."""
    earliness: float = 0.0
    """How much surer than the next each code counts, in log-probability, so that an utterance is
    kept from its beginning on; 0 is off."""
    redraws: int = 8
    """How often at most a picture or speech is drawn again that is the observed one over again."""
    max_tokens: int = 64
    """Pieces of a text at most."""

    def __post_init__(self) -> None:
        for name in ("temperature", "guidance", "choice_temperature", "earliness"):
            value = getattr(self, name)
            if not (0 <= value < math.inf):
                raise ConfigError(f"{name}: must be at least 0, got {value}")
        if self.guidance > MAX_GUIDANCE:
            raise ConfigError(f"guidance: must be at most {MAX_GUIDANCE:g}, got {self.guidance}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: {self.top_p} is not in (0, 1]")
        for name in ("steps", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if self.redraws < 0:
            raise ConfigError(f"redraws: must be at least 0, got {self.redraws}")
        if self.schedule not in SCHEDULES:
            names = " or ".join(SCHEDULES)
            raise ConfigError(f"schedule: must be {names}, got {self.schedule!r}")

    @property
    def guided(self) -> bool:
        """Whether it is computed a second time with nothing observed."""
        return self.guidance != 1


class Grown(NamedTuple):
    """What there is of an output."""

    ids: Sequence[int]
    final: int
    """How many of them, from the first on, will not change any more."""


class Progress(NamedTuple):
    """What a step did."""

    grown: Mapping[int, Grown]
    """Each draft that changed, by its number."""
    done: Mapping[int, Target]
    """Those that are at their end, which are drafts no more."""


@dataclass(eq=False)
class _Draft:
    sequences: Sequence[tuple[Prefix, int]]
    """Where it is computed; if there is guidance, a second time with nothing observed."""
    target: Target
    """With the ids so far."""
    decoding: Decoding
    seed: int
    last_CD: Tensor
    """The output of each sequence behind its newest id."""
    step: int = 0


class Drafts(ABC):
    """Outputs of one modality, each at a step of its own and decoded in its own way.

    All of them are guided or none is. Others may begin between two steps, and be dropped; what
    becomes of one does not depend on its neighbours.
    """

    def __init__(self) -> None:
        self._drafts: dict[int, _Draft] = {}

    def __len__(self) -> int:
        """How many are not done."""
        return len(self._drafts)

    def begin(
        self,
        numbers: Sequence[int],
        prefix: Prefix,
        targets: Sequence[Target],
        decodings: Sequence[Decoding],
        seeds: Sequence[int],
    ) -> None:
        """Begin some more.

        Args:
            numbers: what they are called; no other has one of these.
            prefix: of their N sequences, and if there is guidance the same N with nothing observed;
                its cache is that of all others.
            targets: texts with the unified ids that they begin with, or targets whose every code is
                masked.
            decodings: how the ids of each are chosen.
            seeds: of the draws of each; nothing else decides them.
        """
        size = len(numbers)
        last_ND = self._entered(prefix, targets)
        begun = {}
        for i, number in enumerate(numbers):
            copies = list(range(i, len(last_ND), size))
            sequences = [(prefix, copy) for copy in copies]
            begun[number] = _Draft(sequences, targets[i], decodings[i], seeds[i], last_ND[copies])
        self._drafts.update(begun)

    @abstractmethod
    def _entered(self, prefix: Prefix, targets: Sequence[Target]) -> Tensor:
        """The outputs (N, D) behind what the targets begin with."""

    @abstractmethod
    def step(self) -> Progress:
        """Go on with all of them.

        Raises:
            NumericError: the model is broken.
        """

    def drop(self, numbers: Iterable[int]) -> None:
        """Give up those of some numbers that are not done."""
        for number in numbers:
            draft = self._drafts.pop(number, None)
            for prefix, i in draft.sequences if draft else ():
                prefix.cache.give([prefix.starts[i]])

    def _progress(self, grown: Mapping[int, Grown], ended: Iterable[int]) -> Progress:
        done = {number: self._drafts[number].target for number in ended}
        self.drop(done)
        return Progress(grown, done)


class Texts(Drafts):
    """Texts, of which each gets a piece in a step; the end of a text is no part of it."""

    def _entered(self, prefix: Prefix, targets: Sequence[Target]) -> Tensor:
        """Pieces enter one by one, as when they are decoded."""
        last_ND = prefix.last_ND.clone()
        size, texts = len(targets), [target.ids for target in targets]
        for at in range(max(map(len, texts), default=0)):
            rows = [i for i in range(len(last_ND)) if at < len(texts[i % size])]
            ids = [texts[i % size][at : at + 1] for i in rows]
            positions = [np.full((1, 2), at + 1)] * len(rows)
            last_ND[rows] = prefix.extend(rows, ids, positions, keep=True)
        return last_ND

    def step(self) -> Progress:
        """See `Drafts.step`; those that grew have a piece more."""
        drafts = list(self._drafts.items())
        h_ND = torch.stack(list(_by_copy([list(draft.last_CD) for _, draft in drafts])))
        prefix, _ = drafts[0][1].sequences[0]
        guidance = [draft.decoding.guidance for _, draft in drafts]
        log_p_NV = _log_probabilities(prefix, prefix.model.continuations(h_ND), guidance)
        grown, ended = {}, []
        for row, (number, draft) in enumerate(drafts):
            rng = generator("text", draft.seed, draft.step)
            piece = int(_draw(log_p_NV[row : row + 1], rng.random((1,)), draft.decoding)[0])
            draft.step += 1
            if piece > 0:
                ids = [*draft.target.ids.tolist(), int(Special.END_TEXT) + piece]
                draft.target = replace(
                    draft.target, ids=torch.tensor(ids, dtype=torch.int64), grid=(len(ids), 1)
                )
                grown[number] = Grown(tuple(ids), len(ids))
            if piece == 0 or draft.step == draft.decoding.max_tokens:
                ended.append(number)
        self._append([draft for number, draft in drafts if number not in ended])
        return self._progress(grown, ended)

    def _append(self, drafts: Sequence[_Draft]) -> None:
        """Compute the outputs behind the newest pieces."""
        if not drafts:
            return
        sequences = list(_by_copy([draft.sequences for draft in drafts]))
        copies = len(drafts[0].sequences)
        ids = [draft.target.ids[-1:] for draft in drafts] * copies
        positions = [np.full((1, 2), len(draft.target.ids)) for draft in drafts] * copies
        h_ND = extend(sequences, ids, positions, keep=True)
        for i, draft in enumerate(drafts):
            draft.last_CD = h_ND[i :: len(drafts)]


def _by_copy(values: Sequence[Sequence[V]]) -> Iterator[V]:
    """The first of each, then if there is guidance the second of each."""
    for copies in zip(*values, strict=True):
        yield from copies


def _log_probabilities(prefix: Prefix, logits: Tensor, guidance: Sequence[float]) -> np.ndarray:
    """(N, V) fp64 log-probabilities of what the tokenizers know.

    Guided by the guidance of each row, if there are twice as many logits: the second without
    anything observed.

    Raises:
        NumericError: the model is broken.
    """
    log_p = logits.double().log_softmax(-1)
    if not log_p.isfinite().all():
        raise NumericError("the model computed probabilities that are not finite")
    known = prefix.model.known_ids(prefix.modality)
    if len(log_p) > len(guidance):
        seen, unseen = log_p.chunk(2)
        guidance_N1 = torch.tensor(guidance, dtype=log_p.dtype, device=log_p.device)[:, None]
        log_p = unseen + guidance_N1 * (seen - unseen)
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
    """Codes of an utterance, from what the length head says of its logarithm.

    Raises:
        NumericError: the model is broken.
    """
    if not (math.isfinite(mean) and math.isfinite(log_deviation)):
        raise NumericError("the model computed a length that is not finite")
    noise = generator("length", seed).standard_normal() * min(1.0, decoding.temperature)
    deviation = math.exp(min(log_deviation, 20))
    return min(most, max(1, round(math.exp(min(mean + deviation * noise, 20)))))


class Codes(Drafts):
    """Pictures or speech, whose codes are all masked at first (Chang et al., 2022, MaskGIT).

    In each step all masked codes of one are drawn, and the surest are kept: so many that the masked
    ones fall to none along the schedule. A step shows all that was drawn, and one of which nothing
    is masked any more is done, as all that is kept stays.
    """

    def _entered(self, prefix: Prefix, targets: Sequence[Target]) -> Tensor:
        """Nothing is kept behind a prefix."""
        return prefix.last_ND

    def step(self) -> Progress:
        """See `Drafts.step`; all of them changed."""
        drafts = list(self._drafts.items())
        copies = len(drafts[0][1].sequences)
        given = [draft.target.ids for _, draft in drafts] * copies
        positions = [draft.target.positions() + 1 for _, draft in drafts] * copies
        sequences = list(_by_copy([draft.sequences for _, draft in drafts]))
        h_TD = extend(sequences, given, positions, keep=False)
        prefix, _ = sequences[0]
        modality: Modality = prefix.modality
        start = prefix.model.vocabulary.range_of(modality).start
        mask = prefix.model.vocabulary.mask_id(modality) - start
        # a product of fewer rows may round otherwise, so what is not masked is left out after it
        masked_T = (torch.cat(given) == mask + start).to(h_TD.device)
        logits_MV = prefix.model.code_logits(h_TD, modality)[masked_T]
        guidance = [
            draft.decoding.guidance
            for _, draft in drafts
            for _ in range(int((draft.target.ids == mask + start).sum()))
        ]
        log_p_MV = _log_probabilities(prefix, logits_MV, guidance)
        at, drawn, ended = 0, {}, []
        for number, draft in drafts:
            local_T = draft.target.ids.numpy() - start
            end = at + int((local_T == mask).sum())
            rng = generator("codes", draft.seed, draft.step)
            whole_T, kept_T = _filled(
                log_p_MV[at:end], local_T, mask, draft.step, draft.decoding, rng
            )
            masked = kept_T == mask
            final = int(masked.argmax()) if masked.any() else len(kept_T)
            drawn[number] = Grown(tuple(whole_T + start), final)
            draft.target = replace(draft.target, ids=torch.from_numpy(kept_T + start))
            draft.step += 1
            at = end
            if final == len(kept_T):
                ended.append(number)
        return self._progress(drawn, ended)


def _filled(
    log_p_MV: np.ndarray,
    local_T: np.ndarray,
    mask: int,
    step: int,
    decoding: Decoding,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """One step of one target, of whose T codes M are masked.

    Returns:
        Local ids (T,), all of them, and with `mask` where it is still masked.
    """
    size, place_M = len(local_T), np.flatnonzero(local_T == mask)
    # numbers for all T, so that those of a code do not depend on which others are masked
    drawn_M = _draw(log_p_MV, rng.random(size)[place_M], decoding)
    left = 1 - (step + 1) / decoding.steps
    sure_M = log_p_MV[np.arange(len(place_M)), drawn_M] + (
        decoding.choice_temperature * left * rng.gumbel(size=size)[place_M]
    )
    sure_M -= decoding.earliness * place_M
    filled_T = local_T.copy()
    filled_T[place_M] = drawn_M
    share = math.cos(math.pi / 2 * (1 - left)) if decoding.schedule == "cosine" else left
    still = math.floor(size * share)
    still = max(0, min(still, len(place_M) - 1)) if left > 0 else 0
    kept_T = filled_T.copy()
    kept_T[place_M[np.argsort(sure_M, kind="stable")[:still]]] = mask
    return filled_T, kept_T
