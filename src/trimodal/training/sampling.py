"""What a model in training makes of held-out rows: files to look at and listen to.

write_samples(model, rows[:4], run.path / "samples" / "step-00000400")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimodal.data import Row
from trimodal.errors import StorageError
from trimodal.models import TrimodalModel
from trimodal.processors.encoding import picture_bytes, speech_bytes

COUNT = 4
"""Held-out rows that are looked at."""
MODALITIES = ("image", "text", "speech")


@dataclass(frozen=True)
class Made:
    """One output, and what it was made from."""

    name: str
    """Such as `0-image-text`: of the first row, a text from its picture."""
    to: str
    output: str | np.ndarray
    """A text, an (H, W, 3) uint8 picture or (S,) samples."""


def write_samples(model: TrimodalModel, rows: Sequence[Row], folder: Path) -> list[Made]:
    """Generate what the model generates, from each other modality that a row has, and write it.

    The same rows and seeds every time, so that what is learnt is what differs.

    Raises:
        DataError: a medium cannot be used.
        StorageError: the folder cannot be written.
    """
    was_training = model.training
    model.eval()
    try:
        made = [
            one
            for to in model.config.generates
            for source in MODALITIES
            if source != to
            for one in _made(model, rows, source, to)
        ]
    finally:
        model.train(was_training)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in made:
            content, suffix = _encoded(model, one)
            (folder / f"{one.name}{suffix}").write_bytes(content)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}") from error
    return made


def _made(model: TrimodalModel, rows: Sequence[Row], source: str, to: str) -> list[Made]:
    having = [i for i, row in enumerate(rows) if source in row.data_names]
    if not having:
        return []
    given: list[Any] = [_source(rows[i], source) for i in having]
    outputs = model.generate(
        image=given if source == "image" else None,
        text=given if source == "text" else None,
        speech=given if source == "speech" else None,
        to=to,
    )
    return [
        Made(f"{i}-{source}-{to}", to, output) for i, output in zip(having, outputs, strict=True)
    ]


def _source(row: Row, name: str) -> Any:
    return next(iter(row.texts.values())) if name == "text" else getattr(row, name)


def _encoded(model: TrimodalModel, one: Made) -> tuple[bytes, str]:
    if isinstance(one.output, str):
        return f"{one.output}\n".encode(), ".txt"
    if one.to == "image":
        return picture_bytes(one.output, "PNG"), ".png"
    return speech_bytes(one.output, model.sample_rate, "WAV"), ".wav"
