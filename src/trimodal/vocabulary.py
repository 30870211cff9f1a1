"""The unified vocabulary: one id space of `[special | text pieces | vision codes | speech codes]`.

Each range has padded capacity, so a retrained tokenizer moves nothing in the other ranges.

    vocabulary = Vocabulary(config.vocabulary)
    ids = vocabulary.text.start + pieces
"""

from enum import IntEnum
from typing import NamedTuple

from trimodal.batch import Modality
from trimodal.config import LANGUAGES, VocabularyConfig

NUM_SPECIAL = 64
"""Ids kept for special tokens, so that adding one moves no range."""


class Special(IntEnum):
    """Special tokens; the number of each is part of every saved model."""

    MASK_VISION = 0
    MASK_TEXT = 1
    MASK_SPEECH = 2
    NOTHING = 3
    """Stands for the condition where there is none."""
    BEGIN_VISION = 4
    BEGIN_TEXT = 5
    BEGIN_SPEECH = 6
    ENGLISH = 7
    CHINESE = 8
    ANSWER = 9
    """Asks for the answer to a question, where a description is meant otherwise."""
    END_TEXT = NUM_SPECIAL - 1
    """Stands right before the pieces, so that it shares one range of logits with them."""


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

    def range_of(self, modality: Modality) -> Range:
        """The range of what stands for a medium of `modality`."""
        return (self.vision, self.text, self.speech)[modality]

    @property
    def continuations(self) -> Range:
        """What may follow in a text: its end, or a piece."""
        return Range(Special.END_TEXT, self.text.size + 1)

    @staticmethod
    def mask_id(modality: Modality) -> int:
        """The special token that stands for a hidden token of `modality`."""
        return int(modality)


def prompt(modality: Modality, lang: str | None = None, *, answer: bool = False) -> tuple[int, ...]:
    """The special tokens before a target.

    Args:
        modality: of the target.
        lang: in which language it is written or spoken; None leaves it open.
        answer: the target answers a question instead of saying what the condition shows.
    """
    tokens = [int(Special.BEGIN_VISION) + int(modality)]
    if lang is not None:
        tokens.append(int(Special.ENGLISH) + LANGUAGES.index(lang))
    if answer:
        tokens.append(int(Special.ANSWER))
    return tuple(tokens)
