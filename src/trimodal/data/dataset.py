"""Rows of manifests as samples, decoded once and augmented anew in every step.

sample = dataset.sample(index, "augment", seed, step)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from trimodal.batch import Medium, Modality, Sample
from trimodal.config import SpeechAugmentConfig, VisionAugmentConfig
from trimodal.data.manifest import Row
from trimodal.errors import DataError
from trimodal.processors import TrimodalProcessor
from trimodal.processors.augmentation import augment_image, augment_speech
from trimodal.streams import digest, generator


class RowDataset:
    """Random access to the samples of manifest rows."""

    def __init__(
        self,
        rows: Sequence[Row],
        processor: TrimodalProcessor,
        vision_augment: VisionAugmentConfig,
        speech_augment: SpeechAugmentConfig,
        positives: Literal["sample", "group", "label"] = "group",
        cache_bytes: int = 0,
    ) -> None:
        self.rows = rows
        self.processor = processor
        self.vision_augment = vision_augment
        self.speech_augment = speech_augment
        self.groups = [digest(row.key(positives)) >> 1 for row in rows]
        self._cache: dict[Path, Tensor] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, *keys: str | int) -> Sample:
        """Row `index`; its language and its augmentation are pure functions of keys and row id.

        Raises:
            DataError: `FILE:LINE: cause` for a medium that cannot be read.
        """
        row = self.rows[index]
        media: dict[Modality, Medium] = {}
        try:
            if row.image is not None:
                image = self._decoded(row.image, Modality.VISION)
                image = augment_image(image, self.vision_augment, generator("image", *keys, row.id))
                media[Modality.VISION] = self.processor.vision.medium(image)
            if row.texts:
                texts = list(row.texts.values())
                chosen = generator("text", *keys, row.id).integers(len(texts))
                media[Modality.TEXT] = self.processor.text.medium(texts[chosen])
            if row.speech is not None:
                frames = self._decoded(row.speech, Modality.SPEECH)
                frames = augment_speech(
                    frames, self.speech_augment, generator("speech", *keys, row.id)
                )
                media[Modality.SPEECH] = self.processor.speech.medium(frames)
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from error
        return Sample(row.id, media, self.groups[index])

    def _decoded(self, path: Path, modality: Modality) -> Tensor:
        """Pixels or log-mel frames of a file, kept while there is room."""
        if (kept := self._cache.get(path)) is not None:
            return kept
        if modality is Modality.VISION:
            decoded = self.processor.vision.decode(path)
        else:
            speech = self.processor.speech
            decoded = speech.frames(speech.decode(path))
        size = decoded.numel() * decoded.element_size()
        if size <= self._room:
            self._room -= size
            self._cache[path] = decoded
        return decoded
