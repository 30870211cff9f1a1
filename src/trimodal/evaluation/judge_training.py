"""Training judges on the labelled rows of a manifest.

judges = train_judges("data/digits/train.jsonl", steps=200)
"""

import abc
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimodal.config import SpeechAugmentConfig, VisionAugmentConfig
from trimodal.data import Row, read_manifest
from trimodal.errors import ConfigError, DataError, NumericError
from trimodal.evaluation.classification import classification_scores
from trimodal.evaluation.judges import (
    Input,
    Judges,
    JudgesConfig,
    MediaFile,
    fingerprint,
    judge_files,
    padded,
    read_medium,
    scaled,
)
from trimodal.processors.augmentation import augment_image, augment_speech
from trimodal.progress import Progress
from trimodal.storage import Source
from trimodal.streams import generator, permutation

BATCH = 64
PEAK, WARMUP = 4e-3, 0.1
WEIGHT_DECAY = 0.05
SMOOTHING = 0.1
WORN = 0.35
"""Share of the utterances that are also heard through something like a vocoder."""
BLURRED = 0.25
"""Share of the draws that are blurred, as an autoencoder blurs."""
VISION_AUGMENT = VisionAugmentConfig(
    rotate_degrees=12, scale=0.15, shear_degrees=8, shift=0.1, gamma=0.7
)
SPEECH_AUGMENT = SpeechAugmentConfig(
    stretch=0.25, warp=0.15, tilt=0.5, noise=0.5, shift=8, frequency_mask=10, time_mask=0.15
)
INPUTS: tuple[Input, ...] = ("image", "speech")
FFT, HOP = 512, 128
CACHE_BYTES = 2**30
"""Decoded media that are kept in memory, of each judge."""


def train_judges(
    data: str | Path, *, steps: int = 200, seed: int = 0, progress: bool = False
) -> Judges:
    """Train a judge of each modality that has labelled rows.

    Rows without a label take no part. Order, augmentation and initialisation are pure functions of
    the seed.

    Args:
        data: the manifest.
        steps: of each judge, of `BATCH` media each.
        seed: see above.
        progress: say on stderr how far it is.

    Raises:
        DataError: there are not two labels, a file has two labels, or a medium cannot be read.
        ConfigError: steps or seed are out of range.
    """
    if steps < 1:
        raise ConfigError(f"steps: must be at least 1, got {steps}")
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed: must be from 0 to 2**63 - 1, got {seed}")
    rows = read_manifest(data)
    labels = sorted({row.label for row in rows if row.label is not None})
    if len(labels) < 2:
        raise DataError(f"{data} has {len(labels)} labels, judges need two at least")
    media = {name: labelled_media(rows, name, labels) for name in INPUTS}
    inputs: tuple[Input, ...] = tuple(
        n for n in INPUTS if len({file.label for file in media[n]}) > 1
    )
    if not inputs:
        raise DataError(f"{data} has neither pictures nor speech of two labels")
    config = JudgesConfig(labels=tuple(labels), inputs=inputs, manifest=fingerprint(data))
    with (
        torch.random.fork_rng(devices=[]),
        Progress(steps * len(inputs) * BATCH, "judges trained on", shown=progress) as bar,
    ):
        torch.manual_seed(seed)
        judges = Judges(config)
        for name in inputs:
            source = (_Pictures if name == "image" else _Speech)(judges, media[name], seed)
            _train(judges.models[name], source, steps, lambda: bar.advance(BATCH))
    return judges


def labelled_media(rows: Sequence[Row], name: Input, labels: Sequence[str]) -> list[MediaFile]:
    """The files of a modality whose label is one of `labels`, each once.

    Raises:
        DataError: a file has two labels.
    """
    found: dict[Source, MediaFile] = {}
    for row in rows:
        path = row.image if name == "image" else row.speech
        if path is None or row.label not in labels:
            continue
        first = found.setdefault(path, MediaFile(path, row.where, row.label))
        if first.label != row.label:
            raise DataError(
                f"{row.where}: {path} has the label {row.label!r}, and {first.label!r} at "
                f"{first.where}"
            )
    return list(found.values())


def measure_judges(judges: Judges, data: str | Path) -> dict[str, dict[str, Any]]:
    """`classification_scores` of each judge on the media of a manifest, each file once.

    Raises:
        DataError: no row has a label that the judges know, or a medium cannot be read.
    """
    rows = read_manifest(data)
    scores = {}
    for name in judges.config.inputs:
        if files := labelled_media(rows, name, judges.labels):
            decided_N = judge_files(judges, name, files)[0].argmax(axis=1)
            label_N = np.array([judges.labels.index(str(file.label)) for file in files])
            scores[name] = classification_scores(decided_N, label_N, judges.labels)
    if not scores:
        raise DataError(f"{data} has no media of a label that these judges know")
    return scores


class _Source(abc.ABC):
    """Batches of augmented media; each is a pure function of (seed, step)."""

    name: ClassVar[Input]

    def __init__(self, judges: Judges, files: Sequence[MediaFile], seed: int) -> None:
        self.judges, self.files, self.seed = judges, files, seed
        self.label_N = torch.tensor([judges.labels.index(str(file.label)) for file in files])
        self._kept: dict[int, list[Tensor]] = {}
        self._room = CACHE_BYTES
        self._order = functools.cache(
            lambda epoch: permutation(len(files), "judge", self.name, seed, epoch)
        )

    def batch(self, step: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """What the judge takes, and the labels (N,)."""
        places = range(step * BATCH, (step + 1) * BATCH)
        chosen = [int(self._order(at // len(self.files))[at % len(self.files)]) for at in places]
        rngs = [generator("judge", self.name, self.seed, at) for at in places]
        media = [self.drawn(self._copies(i), rng) for i, rng in zip(chosen, rngs, strict=True)]
        return self.together(media), self.label_N[chosen]

    def _copies(self, index: int) -> list[Tensor]:
        """What `read` gives, kept while there is room."""
        if (kept := self._kept.get(index)) is not None:
            return kept
        copies = self.read(self.files[index])
        size = sum(copy.numel() * copy.element_size() for copy in copies)
        if size <= self._room:
            self._room -= size
            self._kept[index] = copies
        return copies

    @abc.abstractmethod
    def read(self, file: MediaFile) -> list[Tensor]:
        """The medium as numbers, and perhaps a copy of it that is somewhat worse."""

    @abc.abstractmethod
    def drawn(self, copies: Sequence[Tensor], rng: np.random.Generator) -> Tensor:
        """One of the copies, changed at random."""

    @abc.abstractmethod
    def together(self, media: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the judge takes."""


class _Pictures(_Source):
    name = "image"

    def read(self, file: MediaFile) -> list[Tensor]:
        return [self.judges.pixels(read_medium(self.judges.vision.decode, file))]

    def drawn(self, copies: Sequence[Tensor], rng: np.random.Generator) -> Tensor:
        image = augment_image(copies[0], VISION_AUGMENT, rng).float()
        return blurred(image) if rng.random() < BLURRED else image

    def together(self, media: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (scaled(torch.stack(list(media))),)


class _Speech(_Source):
    name = "speech"

    def read(self, file: MediaFile) -> list[Tensor]:
        speech, rng = self.judges.speech, generator("worn", self.seed, file.path.name)
        waveforms = [read_medium(speech.decode, file)]
        if rng.random() < WORN:
            waveforms.append(worn(waveforms[0], rng))
        return [speech.frames(waveform) for waveform in waveforms]

    def drawn(self, copies: Sequence[Tensor], rng: np.random.Generator) -> Tensor:
        frames = copies[int(rng.integers(len(copies)))]
        if rng.random() < BLURRED:
            frames = blurred(frames[None])[0]
        return augment_speech(frames, SPEECH_AUGMENT, rng)

    def together(self, media: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return padded(media)


def blurred(planes: Tensor) -> Tensor:
    """(C, H, W) float averaged over 3 x 3 neighbours, fewer along the edges."""
    return F.avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)


def worn(waveform: Tensor, rng: np.random.Generator) -> Tensor:
    """A copy (S,) as a poor vocoder gives it: other phases, high bands cut, a hiss.

    The phases are random ones after a round of Griffin and Lim (1984).
    """
    size = waveform.numel()
    waveform = F.pad(waveform, (0, max(0, FFT - size)))
    window = torch.hann_window(FFT)

    def spectrum(samples: Tensor) -> Tensor:
        return torch.stft(samples, FFT, HOP, window=window, return_complex=True)

    def samples_of(phases: Tensor) -> Tensor:
        frames = torch.polar(magnitude, phases)
        return torch.istft(frames, FFT, HOP, window=window, length=waveform.numel())

    magnitude = spectrum(waveform).abs()
    magnitude[int(rng.uniform(0.15, 0.5) * FFT) :] = 0
    phases = torch.from_numpy(rng.uniform(0, 2 * np.pi, magnitude.shape).astype(np.float32))
    samples = samples_of(spectrum(samples_of(phases)).angle())
    decibels = rng.uniform(10, 40)
    hiss = torch.from_numpy(rng.standard_normal(samples.shape, dtype=np.float32))
    level = waveform.square().mean().sqrt() * 10 ** (-decibels / 20)
    return (samples + level * hiss)[:size]


def _train(model: nn.Module, source: _Source, steps: int, advance: Callable[[], None]) -> None:
    """AdamW with a linear warm-up and a linear fall, on smoothed labels."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=WEIGHT_DECAY)
    warmup = max(1, round(WARMUP * steps))
    model.train()
    for step in range(steps):
        rate = min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
        optimizer.param_groups[0]["lr"] = PEAK * rate
        inputs, label_N = source.batch(step)
        loss = F.cross_entropy(model(*inputs)[0], label_N, label_smoothing=SMOOTHING)
        if not torch.isfinite(loss):
            raise NumericError(f"the {source.name} judge: step {step + 1}: the loss is {loss:g}")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        advance()
    model.eval()
