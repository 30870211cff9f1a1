"""Outputs that are the picture or the utterance over again from which they were made.

copies = Copies(rows, SpeechProcessor(config), seed=0)
copies.share("image", rows, pictures), copies.base_rate("image", rows)
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimodal.config import VisionInputConfig
from trimodal.data import Row
from trimodal.errors import DataError
from trimodal.evaluation.judges import Input, MediaFile, decode_speech, read_medium
from trimodal.processors import SpeechProcessor, VisionProcessor
from trimodal.streams import generator

COPY = 0.95
"""An output that correlates with its input more than this is a copy."""


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, over all numbers of two arrays of one shape; 0 if either is constant."""
    a, b = (x.astype(np.float64).ravel() - x.mean(dtype=np.float64) for x in (a, b))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms > 1e-9 else 0.0


class Copies:
    """Compares media by their pixels or log-mel frames."""

    def __init__(self, rows: Sequence[Row], speech: SpeechProcessor, seed: int) -> None:
        self.vision, self.speech, self.seed = VisionProcessor(VisionInputConfig()), speech, seed
        self._files: dict[tuple[str, str], dict[Path, Row]] = {}
        for row in rows:
            for name in ("image", "speech"):
                if (path := path_of(row, name)) is not None:
                    self._files.setdefault((name, _meaning(row)), {}).setdefault(path, row)

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
        found = []
        for row in rows:
            files = self._files.get((name, _meaning(row)), {})
            others = [
                other
                for path, other in files.items()
                if path != path_of(row, name)
                and (name == "image" or lang is None or other.speech_lang in (None, lang))
            ]
            if others:
                place = generator("others", self.seed, row.id).integers(len(others))
                other = self._real(name, others[int(place)])
                found.append(self._alike(name, self._real(name, row), other) > COPY)
        return float(np.mean(found)) if found else None

    def _real(self, name: Input, row: Row) -> Tensor:
        decode: Callable[[Path], Tensor] = (
            self.vision.decode if name == "image" else self.speech.decode
        )
        return read_medium(decode, file_of(row, name))

    def _decoded_speech(self, output: tuple[np.ndarray, int]) -> Tensor:
        return decode_speech(self.speech, output)

    def _alike(self, name: Input, given: Tensor, made: Tensor) -> float:
        if name == "image":
            size = (given.shape[1], given.shape[2])
            resized = torch.nn.functional.interpolate(
                made[None].float(), size, mode="bilinear", antialias=True
            )
            return correlation(given.numpy(), resized[0].numpy())
        given, made = self.speech.frames(given), self.speech.frames(made)
        size = min(len(given), len(made))
        return correlation(given[:size].numpy(), made[:size].numpy())


def path_of(row: Row, name: str) -> Path | None:
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
