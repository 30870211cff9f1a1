"""Outputs that are what was observed over again, and what draws them once more.

redraws = Redraws(processor, Modality.VISION, decoding); redraws.watch([0], [sample], seeds=[3])
again = redraws.copied({0: picture})
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trimodal.batch import Medium, Modality, Sample
from trimodal.models.decoding import Decoding
from trimodal.processors import TrimodalProcessor
from trimodal.processors.likeness import COPY, picture_likeness, speech_likeness
from trimodal.processors.vision import unpatched
from trimodal.streams import digest


class Redraw(NamedTuple):
    """An output that is begun again."""

    sample: Sample
    seed: int


class _Watched(NamedTuple):
    sample: Sample
    seed: int
    redrawn: int


class Redraws:
    """Watches the outputs whose modality is observed too: another picture, another voice is meant.

    Each is drawn again at most `redraws` times, with seeds that its own decides.
    """

    def __init__(self, processor: TrimodalProcessor, to: Modality, decoding: Decoding) -> None:
        self._processor = processor
        self._to = to
        draws = decoding.temperature > 0 or decoding.choice_temperature > 0
        self._most = decoding.redraws if draws and to is not Modality.TEXT else 0
        self._watched: dict[int, _Watched] = {}

    def watch(
        self, numbers: Sequence[int], samples: Sequence[Sample], seeds: Sequence[int]
    ) -> None:
        """Look at some outputs once they are done."""
        for number, sample, seed in zip(numbers, samples, seeds, strict=True):
            if self._most and self._to in sample.media:
                self._watched[number] = _Watched(sample, seed, 0)

    def may_redraw(self, number: int) -> bool:
        """Whether an output that is not done may begin again."""
        watched = self._watched.get(number)
        return watched is not None and watched.redrawn < self._most

    def forget(self, numbers: Iterable[int]) -> None:
        """Those that are given up are not looked at."""
        for number in numbers:
            self._watched.pop(number, None)

    def copied(self, made: Mapping[int, str | np.ndarray]) -> dict[int, Redraw]:
        """Of some outputs that are done, those to begin again; the others are watched no more."""
        again: dict[int, Redraw] = {}
        for number, output in made.items():
            watched = self._watched.pop(number, None)
            if watched is None or isinstance(output, str) or watched.redrawn == self._most:
                continue
            sample, seed, redrawn = watched
            if self._likeness(sample.media[self._to], output) > COPY:
                again[number] = Redraw(sample, digest("redraw", seed, redrawn) >> 1)
                self._watched[number] = _Watched(sample, seed, redrawn + 1)
        return again

    def _likeness(self, given: Medium, output: np.ndarray) -> float:
        made = torch.from_numpy(output)
        if self._to is Modality.SPEECH:
            return speech_likeness(_unpadded(given.features), self._processor.speech.frames(made))
        size = self._processor.vision.config.patch_size
        return picture_likeness(unpatched(given.features, given.grid, size), made.permute(2, 0, 1))


def _unpadded(frames_FM: Tensor) -> Tensor:
    """Without the zeros that `SpeechProcessor.medium` fills the last token up with."""
    spoken = frames_FM.any(dim=1).nonzero()
    # silence is zeros throughout
    return frames_FM[: int(spoken.max()) + 1] if len(spoken) else frames_FM
