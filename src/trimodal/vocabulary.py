"""The unified vocabulary: one id space of `[special | text pieces | vision codes | speech codes]`.

Each range has padded capacity, so a retrained tokenizer moves nothing in the other ranges.

    vocabulary = Vocabulary(config.vocabulary)
    ids = vocabulary.text.start + pieces
"""

from typing import NamedTuple

from trimodal.batch import Modality
from trimodal.config import VocabularyConfig

NUM_SPECIAL = 64
"""Ids kept for special tokens, so that adding one moves no range."""


class Range(NamedTuple):
    """Ids [start, start + size) of the unified vocabulary."""

    start: int
    size: int


class Vocabulary:
    """Where each range of the unified vocabulary lies."""

    def __init__(self, config: VocabularyConfig) -> None:
        self.text = Range(NUM_SPECIAL, config.text)
        self.vision = Range(self.text.start + config.text, config.vision)
        self.speech = Range(self.vision.start + config.vision, config.speech)
        self.size = self.speech.start + config.speech

    @staticmethod
    def mask_id(modality: Modality) -> int:
        """The special token that stands for a hidden token of `modality`."""
        return int(modality)
