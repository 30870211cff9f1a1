"""Outputs that are what was observed over again, and what draws them once more.

redraws = Redraws(processor, Modality.VISION); redraws.watch(0, sample, Decoding(), seed=3)
again = redraws.copied({0: picture})
"""

from collections.abc import Iterable, Mapping
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


class _Watched(NamedTuple):
    observed: Medium
    seed: int
    most: int
    redrawn: int


class Redraws:
    """Watches the outputs whose modality is observed too: another picture, another voice is meant.

    Each is drawn again at most `redraws` times, with seeds that its own decides.
    """

    def __init__(self, processor: TrimodalProcessor, to: Modality) -> None:
        self._processor = processor
        self._to = to
        self._watched: dict[int, _Watched] = {}

    def watch(self, number: int, sample: Sample, decoding: Decoding, seed: int) -> None:
        """Look at an output once it is done."""
        draws = decoding.temperature > 0 or decoding.choice_temperature > 0
        most = decoding.redraws if draws and self._to is not Modality.TEXT else 0
        if most and self._to in sample.media:
            self._watched[number] = _Watched(sample.media[self._to], seed, most, 0)

    def may_redraw(self, number: int) -> bool:
        """Whether an output that is not done may begin again."""
        watched = self._watched.get(number)
        return watched is not None and watched.redrawn < watched.most

    def forget(self, numbers: Iterable[int]) -> None:
        """Those that are given up are not looked at."""
        for number in numbers:
            self._watched.pop(number, None)

    def copied(self, made: Mapping[int, str | np.ndarray]) -> dict[int, int]:
        """Of some outputs that are done, the new seeds of those to begin again.

        The others are watched no more.
        """
        again: dict[int, int] = {}
        for number, output in made.items():
            watched = self._watched.pop(number, None)
            if watched is None or isinstance(output, str) or watched.redrawn == watched.most:
                continue
            if self._likeness(watched.observed, output) > COPY:
                again[number] = digest("redraw", watched.seed, watched.redrawn) >> 1
                self._watched[number] = watched._replace(redrawn=watched.redrawn + 1)
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
