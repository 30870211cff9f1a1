"""Outputs that are the picture or the utterance over again from which they were made.

copies = Copies(rows, SpeechProcessor(config), seed=0)
copies.share("image", rows, pictures), copies.base_rate("image", rows)
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from trimodal.config import VisionInputConfig
from trimodal.data import Row
from trimodal.errors import DataError
from trimodal.evaluation.judges import Input, MediaFile, decode_speech, read_medium
from trimodal.processors import SpeechProcessor, VisionProcessor
from trimodal.processors.likeness import COPY, picture_likeness, speech_likeness
from trimodal.storage import Source
from trimodal.streams import generator


class Copies:
    """Compares media by their pixels or log-mel frames."""

    def __init__(self, rows: Sequence[Row], speech: SpeechProcessor, seed: int) -> None:
        self.vision, self.speech, self.seed = VisionProcessor(VisionInputConfig()), speech, seed
        self.rows = rows

    def share(self, name: Input, rows: Sequence[Row], outputs: Sequence[Any]) -> float:
        """The share of the outputs that are the input of their row over again."""
        made = self.vision.decode if name == "image" else self._decoded_speech
        found = [
            self._alike(name, self._real(name, row), made(output)) > COPY
            for row, output in zip(rows, outputs, strict=True)
        ]
        return float(np.mean(found)) if found else 0.0

    def base_rate(self, name: Input, rows: Sequence[Row], lang: str | None = None) -> float | None:
        """How often another real medium of the same label is as like as a copy; None without any.

        Each row draws one other file of its label, or of its group if it has none; of speech, one
        in the language, if one is named.
        """
        files: dict[str, dict[Source, int]] = {}
        kin: dict[str, list[Row]] = {}
        for row in self.rows:
            path = path_of(row, name)
            if path is None or (name == "speech" and lang and row.speech_lang not in (None, lang)):
                continue
            if path not in files.setdefault(_meaning(row), {}):
                files[_meaning(row)][path] = len(files[_meaning(row)])
                kin.setdefault(_meaning(row), []).append(row)
        found = []
        for row in rows:
            others = kin.get(_meaning(row), [])
            own = files.get(_meaning(row), {}).get(file_of(row, name).path, len(others))
            if count := len(others) - (own < len(others)):
                place = int(generator("others", self.seed, row.id).integers(count))
                # every other file is as likely: those from the own one on move up by one
                other = self._real(name, others[place + (place >= own)])
                found.append(self._alike(name, self._real(name, row), other) > COPY)
        return float(np.mean(found)) if found else None

    def _real(self, name: Input, row: Row) -> Tensor:
        decode: Callable[[Source], Tensor] = (
            self.vision.decode if name == "image" else self.speech.decode
        )
        return read_medium(decode, file_of(row, name))

    def _decoded_speech(self, output: tuple[np.ndarray, int]) -> Tensor:
        return decode_speech(self.speech, output)

    def _alike(self, name: Input, given: Tensor, made: Tensor) -> float:
        if name == "image":
            return picture_likeness(given, made)
        return speech_likeness(self.speech.frames(given), self.speech.frames(made))


def path_of(row: Row, name: str) -> Source | None:
    """The row's picture or utterance."""
    return row.image if name == "image" else row.speech


def file_of(row: Row, name: Input) -> MediaFile:
    """The row's picture or utterance, to be read.

    Raises:
        DataError: it has none.
    """
    path = path_of(row, name)
    if path is None:
        raise DataError(f"{row.where}: has no {name} to compare with")
    return MediaFile(path, row.where, row.label)


def _meaning(row: Row) -> str:
    return row.key("group") if row.label is None else f"label:{row.label}"
