"""What crosses every boundary: media as numbers, and the packed batches made of them.

medium = Medium(Modality.TEXT, features=ids, num_tokens=len(ids), grid=(len(ids), 1))
batch = pack_media([medium, other])
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from trimodal_kernels import Segments

T = TypeVar("T")


class Modality(IntEnum):
    """A modality of the model; `data_name` is what manifests and embeddings call it."""

    VISION = 0
    TEXT = 1
    SPEECH = 2

    @property
    def data_name(self) -> str:
        """`image`, `text` or `speech`."""
        return ("image", "text", "speech")[self]

    @classmethod
    def of(cls, data_name: str) -> "Modality":
        """The modality that manifests call `data_name`."""
        return cls(("image", "text", "speech").index(data_name))


class Route(IntEnum):
    """How a token enters the trunk."""

    OBSERVED = 0
    TARGET = 1
    SUMMARY = 2
    """The embedding of an observed medium, beside its tokens."""


def grid_positions(modality: Modality, grid: tuple[int, int]) -> np.ndarray:
    """(T, 2) int64 positions of the tokens of one medium, see `Medium.positions`."""
    rows, columns = grid
    if modality is Modality.VISION:
        return np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
    return np.repeat(np.arange(rows)[:, None], 2, axis=1)


@dataclass(frozen=True)
class Medium:
    """One image, text or utterance as numbers; what a processor returns."""

    modality: Modality
    features: Tensor
    """Patches (T, P) float32, unified-vocabulary ids (T,) int64, or log-mel frames (F, M) float32,
    F being T times the frontend's stride."""
    num_tokens: int
    grid: tuple[int, int]
    """Rows and columns of patches; (T, 1) for text and speech."""
    codes: Tensor | None = None
    """(T, C) int64 unified-vocabulary ids of the codes that each token covers, if there are any."""
    quantised: Tensor | None = None
    """(T, C) int64 BEST-RQ targets of each token, if there are any."""

    def positions(self) -> np.ndarray:
        """(T, 2) int64: row and column of a patch; the index twice for text and speech."""
        return grid_positions(self.modality, self.grid)


@dataclass(frozen=True)
class Sample:
    """One row of a manifest as numbers: at most one medium of each modality, at least one."""

    id: str
    media: Mapping[Modality, Medium]
    group: int
    """Rows with the same number belong together, see `ContrastiveConfig.positives`."""
    kin: frozenset[Modality] = frozenset()
    """Modalities of which there is another medium of the same meaning: that of another row of its
    group, or the text in another language."""
    asks: bool = False
    """Whether it has a question with an answer."""

    @property
    def num_tokens(self) -> int:
        """Tokens over all its media."""
        return sum(medium.num_tokens for medium in self.media.values())


@dataclass(frozen=True)
class Target:
    """What a view is to predict whole: the pieces of a text, or the codes of a medium."""

    modality: Modality
    ids: Tensor
    """(n,) int64 unified-vocabulary ids, at least one; codes row by row."""
    grid: tuple[int, int]
    """Rows and columns of codes; (n, 1) for text and speech."""
    prompt: tuple[int, ...]
    """Special tokens that say what is wanted; they stand between what is observed and the ids."""

    def positions(self) -> np.ndarray:
        """(n, 2) int64: row and column of an image code; the index twice for text and speech."""
        return grid_positions(self.modality, self.grid)


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of many media or views laid end to end, never padded."""

    positions_T2: Tensor
    """int64, see `Medium.positions`."""
    modality_T: Tensor
    """int64 `Modality` of each token."""
    route_T: Tensor
    """int64 `Route` of each token."""
    cu_seqlens: Tensor
    """(N + 1,) int64, where each medium or view starts, and T."""
    segments: Segments
    seed_T: Tensor | None = None
    """int64, what the draws of dropout of each token start from; None leaves them to torch."""

    def __post_init__(self) -> None:
        size = self.positions_T2.shape[0]
        sizes = {self.modality_T.numel(), self.route_T.numel(), self.segments.num_tokens}
        if sizes != {size}:
            raise ValueError(f"a batch of {size} positions has tables of {sorted(sizes)} tokens")

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.positions_T2.shape[0]


@dataclass(frozen=True)
class MediaBatch:
    """The packed media of one modality."""

    features: Tensor
    """As in `Medium`, end to end."""
    tokens: TokenBatch
    hidden_T: Tensor
    """bool, true for tokens whose features were removed for masked prediction."""

    @property
    def num_media(self) -> int:
        """N."""
        return self.tokens.cu_seqlens.numel() - 1


def token_seeds(seeds: Sequence[int], lengths: Sequence[int]) -> Tensor | None:
    """The seed (T,) int64 of each token of media or views, None without any.

    Args:
        seeds: of each medium or view, below 2^63; or none.
        lengths: their tokens.
    """
    if not seeds:
        return None
    places = [np.arange(length) for length in lengths]
    return torch.from_numpy(np.repeat(np.array(seeds), lengths) + np.concatenate(places))


def pack_media(
    media: Sequence[Medium],
    hidden: Mapping[int, np.ndarray] | None = None,
    seeds: Sequence[int] = (),
) -> MediaBatch:
    """Lay media of one modality end to end.

    Args:
        media: at least one, all of one modality.
        hidden: by index into `media`, (T,) bool, the tokens that were hidden in it.
        seeds: of each medium, for dropout; none leaves the draws to torch.
    """
    lengths = [medium.num_tokens for medium in media]
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
    size = int(cu_seqlens[-1])
    hidden_T = np.zeros(size, dtype=bool)
    for i, mask in (hidden or {}).items():
        hidden_T[cu_seqlens[i] : cu_seqlens[i + 1]] = mask
    tokens = TokenBatch(
        positions_T2=torch.from_numpy(np.concatenate([medium.positions() for medium in media])),
        modality_T=torch.full((size,), int(media[0].modality)),
        route_T=torch.full((size,), int(Route.OBSERVED)),
        cu_seqlens=torch.from_numpy(cu_seqlens),
        segments=Segments.from_lengths(lengths),
        seed_T=token_seeds(seeds, lengths),
    )
    features = end_to_end([medium.features for medium in media])
    return MediaBatch(features, tokens, torch.from_numpy(hidden_T))


def end_to_end(parts: Sequence[Tensor]) -> Tensor:
    """`torch.cat`; in a loader process straight into memory that the process it loads for sees.

    That saves the copy which sending a tensor makes, as `torch.utils.data.default_collate` does.
    """
    size = sum(part.numel() for part in parts)
    if get_worker_info() is None or not size:
        return torch.cat(list(parts))
    first, rows = parts[0], sum(len(part) for part in parts)
    shared = torch.UntypedStorage._new_shared(size * first.element_size())
    out = torch.empty(0, dtype=first.dtype).set_(shared).view(rows, *first.shape[1:])
    return torch.cat(list(parts), out=out)


@dataclass(frozen=True)
class Prediction:
    """What an objective asks the head of one modality for."""

    modality: Modality
    token_K: Tensor
    """int64 positions among the tokens of the views."""
    target: Tensor
    """Unified-vocabulary ids (K,), ids of the codes of a token (K, C), patches (K, P), frames of a
    token (K, stride * M), BEST-RQ targets (K, C), or the logarithm of a length (K,)."""


@dataclass(frozen=True)
class Views:
    """Trunk inputs: each view is a gather over the outputs of the encoders."""

    source_T: Tensor
    """int64 rows of what can be seen: encoder outputs, vision above text above speech, then the
    embedding of each medium in the same order, then `direct_T`."""
    direct_T: Tensor
    """int64 unified-vocabulary ids that enter the trunk through the table: prompts and targets."""
    tokens: TokenBatch
    fused_V: Tensor
    """int64 indices of the views that are pooled into an embedding."""
    fused_sample_V: Tensor
    """int64 sample of each of them."""
    members_V3: Tensor
    """bool, the modalities in each of them."""
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    """By the name of the loss, such as `masked_vision`, `causal_text` or `length_speech`."""


@dataclass(frozen=True)
class Matching:
    """Tuples of which the model is to say what belongs together.

    It chooses the wrong media itself, by similarities that only its forward knows.
    """

    sample_V: Tensor
    """int64 sample of each tuple."""
    members_V3: Tensor
    """bool, the modalities in it."""
    wrong_V3: Tensor
    """bool, those that are to be another sample's; not all of them."""
    draw_V3: Tensor
    """float64 in [0, 1), which decide whose."""
    group_N: Tensor
    """int64 group of each sample; a wrong medium is of another group."""
    seed_V: Tensor | None = None
    """int64, for the dropout of each tuple."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch: every medium once, clean, then the masked copies, and the trunk's views."""

    num_samples: int
    media: Mapping[Modality, MediaBatch]
    sample_N: Mapping[Modality, Tensor]
    """int64 sample of each clean medium; the masked copies follow them and have none."""
    group_N: Tensor
    """int64 group of each sample."""
    views: Views | None = None
    matching: Matching | None = None
    ids: tuple[str, ...] = ()
    """Of the samples."""
    skipped: tuple[str, ...] = ()
    """Why samples are empty, and targets missing, of this step."""

    @property
    def num_tokens(self) -> int:
        """Tokens that the encoders and the trunk compute."""
        trunk = self.views.tokens.num_tokens if self.views else 0
        return trunk + sum(media.tokens.num_tokens for media in self.media.values())

    def inputs(self) -> dict[str, Any]:
        """The keyword arguments of the model's forward."""
        return {
            "num_samples": self.num_samples,
            "media": self.media,
            "sample_N": self.sample_N,
            "views": self.views,
            "matching": self.matching,
        }


def to_device(value: T, device: torch.device | str) -> T:
    """A copy of a batch, or of any part of one, with its tensors on `device`."""
    moved: Any = value
    if isinstance(value, Tensor | Segments):
        moved = value.to(device)
    elif isinstance(value, Mapping):
        moved = {key: to_device(item, device) for key, item in value.items()}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {
            f.name: to_device(getattr(value, f.name), device) for f in dataclasses.fields(value)
        }
        moved = dataclasses.replace(value, **parts)
    return moved
