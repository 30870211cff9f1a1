"""The trunk's views: what it sees of one sample at once, and what it is asked about it.

views = pack_views([View([(Modality.TEXT, 0)], sample=0, target=target, hidden_T=mask)], media)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from trimodal.batch import (
    MediaBatch,
    Medium,
    Modality,
    Prediction,
    Route,
    Target,
    TokenBatch,
    Views,
    token_seeds,
)
from trimodal.vocabulary import Special, Vocabulary
from trimodal_kernels import Kind, Segments

Part = tuple[Modality, int]
"""A packed medium: its modality and its place among the media of that modality."""


@dataclass(frozen=True)
class View:
    """What is observed, then the prompt and the target; see `docs/architecture.md`."""

    parts: Sequence[Part]
    sample: int
    members: frozenset[Modality] | None = None
    """The modalities of a view that is pooled into an embedding."""
    masked: tuple[Medium, np.ndarray] | None = None
    """The clean medium of the masked copy among the parts, and which of its tokens are hidden."""
    target: Target | None = None
    hidden_T: np.ndarray | None = None
    """bool, which codes of the target are masked; None for a text, which is causal."""
    seed: int | None = None
    """For its dropout."""

    @property
    def causal(self) -> bool:
        """Whether the target is read left to right."""
        return self.target is not None and self.target.modality is Modality.TEXT


@dataclass
class _Layout:
    """Where the tokens of one view lie: observed from `start`, prompt, target, up to `end`."""

    start: int
    prompt: int
    target: int
    end: int

    def rows(self, causal: bool) -> list[tuple[int, int, int, int, Kind]]:
        """Of the segment table: nothing that is observed sees the target."""
        if causal:
            spans = [(self.start, self.prompt, Kind.FULL), (self.prompt, self.end, Kind.CAUSAL)]
        else:
            bounds = (self.start, self.prompt, self.target, self.end)
            spans = [(a, b, Kind.FULL) for a, b in pairwise(bounds)]
        return [(a, b, self.start, b, kind) for a, b, kind in spans if b > a]


class _Builder:
    """Lays views end to end."""

    def __init__(self, media: Mapping[Modality, MediaBatch], summaries: bool) -> None:
        self.media = media
        self.bounds = {m: batch.tokens.cu_seqlens.numpy() for m, batch in media.items()}
        self.offsets: dict[Modality, int] = {}
        for modality in sorted(media):
            self.offsets[modality] = sum(media[m].tokens.num_tokens for m in self.offsets)
        self.num_tokens = sum(batch.tokens.num_tokens for batch in media.values())
        self.num_encoded = self.num_tokens
        self.summaries: dict[Modality, int] = {}
        for modality in sorted(media) if summaries else ():
            self.summaries[modality] = self.num_encoded
            self.num_encoded += media[modality].num_media
        self.sources: list[np.ndarray] = []
        self.direct: list[np.ndarray] = []
        self.direct_positions: list[np.ndarray] = []
        self.direct_modalities: list[int] = []
        self.direct_routes: list[int] = []
        self.num_direct = 0
        self.size = 0

    def add(self, view: View) -> _Layout:
        start = self.size
        for modality, i in view.parts:
            rows = np.arange(self.bounds[modality][i], self.bounds[modality][i + 1])
            self._gather(rows + self.offsets[modality])
            if self.summaries:
                self._gather(np.array([self.summaries[modality] + i]))
        target = view.target
        if target is None:
            return _Layout(start, self.size, self.size, self.size)
        if not view.parts:
            self._enter(np.array([Special.NOTHING]), np.zeros((1, 2)), target, Route.OBSERVED)
        prompt = self.size
        size = len(target.prompt)
        self._enter(np.array(target.prompt), np.zeros((size, 2)), target, Route.TARGET)
        start_of_target = self.size
        ids = target.ids.numpy()
        if view.hidden_T is not None:
            ids = np.where(view.hidden_T, Vocabulary.mask_id(target.modality), ids)
        # the prompt has position 0
        self._enter(ids, target.positions() + 1, target, Route.TARGET)
        return _Layout(start, prompt, start_of_target, self.size)

    def _gather(self, rows: np.ndarray) -> None:
        self.sources.append(rows)
        self.size += len(rows)

    def _enter(self, ids: np.ndarray, positions: np.ndarray, target: Target, route: Route) -> None:
        self._gather(self.num_encoded + self.num_direct + np.arange(len(ids)))
        self.num_direct += len(ids)
        self.direct.append(ids.astype(np.int64))
        self.direct_positions.append(positions.astype(np.int64))
        self.direct_modalities += [int(target.modality)] * len(ids)
        self.direct_routes += [int(route)] * len(ids)

    def source(self) -> Tensor:
        """The row of each token among what is encoded and what enters directly."""
        return torch.from_numpy(np.concatenate(self.sources))

    def direct_ids(self) -> Tensor:
        """The ids that enter directly."""
        ids = np.concatenate(self.direct) if self.direct else np.zeros(0, dtype=np.int64)
        return torch.from_numpy(ids)

    def tokens(self, layouts: Sequence[_Layout], views: Sequence[View]) -> TokenBatch:
        """The tokens of all views."""
        source_T = self.source()
        media = [self.media[m] for m in sorted(self.media)]
        positions = [batch.tokens.positions_T2 for batch in media]
        modalities = [batch.tokens.modality_T for batch in media]
        routes = [batch.tokens.route_T for batch in media]
        for modality, size in ((m, self.media[m].num_media) for m in self.summaries):
            positions.append(torch.zeros(size, 2, dtype=torch.int64))
            modalities.append(torch.full((size,), int(modality)))
            routes.append(torch.full((size,), int(Route.SUMMARY)))
        positions += [torch.from_numpy(p) for p in self.direct_positions]
        modalities.append(torch.tensor(self.direct_modalities, dtype=torch.int64))
        routes.append(torch.tensor(self.direct_routes, dtype=torch.int64))
        rows = [
            row
            for layout, view in zip(layouts, views, strict=True)
            for row in layout.rows(view.causal)
        ]
        return TokenBatch(
            positions_T2=torch.cat(positions)[source_T],
            modality_T=torch.cat(modalities)[source_T],
            route_T=torch.cat(routes)[source_T],
            cu_seqlens=torch.tensor([0, *(layout.end for layout in layouts)]),
            segments=Segments.from_rows(rows, self.size),
            seed_T=token_seeds(
                [view.seed for view in views if view.seed is not None],
                [layout.end - layout.start for layout in layouts],
            ),
        )


def pack_views(
    views: Sequence[View], media: Mapping[Modality, MediaBatch], *, summaries: bool
) -> Views:
    """Lay views end to end and note what is to be predicted in them.

    Args:
        views: at least one.
        media: what their parts are places in.
        summaries: whether the embedding of a medium stands behind its tokens.
    """
    builder = _Builder(media, summaries)
    layouts = [builder.add(view) for view in views]
    fused = [v for v, view in enumerate(views) if view.members is not None]
    return Views(
        source_T=builder.source(),
        direct_T=builder.direct_ids(),
        tokens=builder.tokens(layouts, views),
        fused_V=torch.tensor(fused, dtype=torch.int64),
        fused_sample_V=torch.tensor([views[v].sample for v in fused], dtype=torch.int64),
        members_V3=torch.tensor(
            [[m in (views[v].members or ()) for m in Modality] for v in fused], dtype=torch.bool
        ).view(-1, len(Modality)),
        predictions=_predictions(views, layouts, media, summaries),
    )


@dataclass
class _Questions:
    """The tokens and targets of one loss."""

    modality: Modality
    tokens: list[np.ndarray]
    targets: list[Tensor]

    def prediction(self) -> Prediction:
        token_K = torch.from_numpy(np.concatenate(self.tokens))
        return Prediction(self.modality, token_K, torch.cat(self.targets))


def _predictions(
    views: Sequence[View],
    layouts: Sequence[_Layout],
    media: Mapping[Modality, MediaBatch],
    summaries: bool,
) -> dict[str, Prediction]:
    asked: dict[str, _Questions] = {}

    def ask(loss: str, modality: Modality, tokens: np.ndarray, target: Tensor) -> None:
        name = f"{loss}_{modality.name.lower()}"
        questions = asked.setdefault(name, _Questions(modality, [], []))
        questions.tokens.append(tokens)
        questions.targets.append(target)

    for view, layout in zip(views, layouts, strict=True):
        if view.masked is not None:
            clean, hidden_T = view.masked
            first = layout.start + _tokens_before(view, clean.modality, media, summaries)
            tokens, hidden = first + np.flatnonzero(hidden_T), torch.from_numpy(hidden_T)
            if clean.quantised is not None:
                ask("quantised", clean.modality, tokens, clean.quantised[hidden])
            else:
                ask("masked", clean.modality, tokens, _content(clean)[hidden])
        target = view.target
        if target is None or not len(target.ids):
            continue
        if view.causal:
            end = torch.tensor([int(Special.END_TEXT)])
            tokens = np.arange(layout.target - 1, layout.end)
            ask("causal", target.modality, tokens, torch.cat([target.ids, end]))
        elif view.hidden_T is not None:
            tokens = layout.target + np.flatnonzero(view.hidden_T)
            ask("target", target.modality, tokens, target.ids[torch.from_numpy(view.hidden_T)])
            if target.modality is Modality.SPEECH:
                length = torch.tensor([math.log(len(target.ids))])
                ask("length", target.modality, np.array([layout.target - 1]), length)
    return {name: questions.prediction() for name, questions in sorted(asked.items())}


def _tokens_before(
    view: View, modality: Modality, media: Mapping[Modality, MediaBatch], summaries: bool
) -> int:
    """Tokens and summaries of the view before the masked copy, which is of `modality`."""
    before = 0
    for other, i in view.parts:
        if other is modality:
            break
        bounds = media[other].tokens.cu_seqlens
        before += int(bounds[i + 1] - bounds[i]) + summaries
    return before


def _content(clean: Medium) -> Tensor:
    """What each token stands for: ids, codes, or features if it was not tokenised."""
    if clean.codes is not None:
        return clean.codes
    if clean.modality is Modality.TEXT:
        return clean.features
    return clean.features.reshape(clean.num_tokens, -1)
