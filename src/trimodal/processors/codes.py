"""Pictures and speech as codes of the unified vocabulary, and codes as pictures and speech.

codes = CodeProcessor(tokenizers, model_config)
target = codes.target(medium, prompt(Modality.SPEECH, "en"))
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from trimodal.batch import Medium, Modality, Target
from trimodal.config import ModelConfig
from trimodal.errors import ConfigError
from trimodal.processors.vision import unpatched
from trimodal.tokenizers import SpeechTokenizer, Tokenizers, VisionTokenizer, fingerprint
from trimodal.vocabulary import Vocabulary


class CodeProcessor:
    """The learnt tokenizers of a model, with ids in place of their own numbers.

    Raises:
        ConfigError: a tokenizer does not fit the architecture.
    """

    def __init__(self, tokenizers: Tokenizers, config: ModelConfig) -> None:
        self.tokenizers = tokenizers
        self.config = config
        self.vocabulary = Vocabulary(config.vocabulary)
        if tokenizers.vision is not None:
            stride, patch = tokenizers.vision.config.stride, config.vision_input.patch_size
            if patch % stride:
                raise ConfigError(
                    f"model.vision_input.patch_size: {patch} is not a multiple of the {stride} "
                    "pixels that a code of the vision tokenizer covers"
                )
            _check("vision", tokenizers.vision.config.num_codes, config.vocabulary.vision)
            _check_cells("vision", (patch // stride) ** 2, config.vision_codes)
        if tokenizers.speech is not None:
            if tokenizers.speech.config.speech_input != config.speech_input:
                raise ConfigError("model.speech_input: the speech tokenizer reads other frames")
            stride, frames = tokenizers.speech.config.stride, config.speech_input.stride
            if frames % stride:
                raise ConfigError(
                    f"model.speech_input.stride: {frames} is not a multiple of the {stride} frames "
                    "that a code of the speech tokenizer covers"
                )
            _check("speech", tokenizers.speech.config.num_codes, config.vocabulary.speech)
            _check_cells("speech", frames // stride, config.speech_codes)

    def tokenized(self, media: Sequence[Medium]) -> list[Medium]:
        """The media of one modality, vision or speech, with their `codes`."""
        found = []
        for medium, ids in zip(media, self._ids(media), strict=True):
            if medium.modality is Modality.VISION:
                rows, columns = medium.grid
                ids = ids.view(rows, len(ids) // rows, columns, -1).transpose(1, 2)
            found.append(replace(medium, codes=ids.reshape(medium.num_tokens, -1)))
        return found

    def target(self, medium: Medium, prompt: tuple[int, ...]) -> Target:
        """A picture or an utterance as what is to be predicted."""
        (ids,) = self._ids([medium])
        grid = (ids.shape[0], ids.shape[1] if ids.dim() == 2 else 1)
        return Target(medium.modality, ids.flatten(), grid, prompt)

    def empty_target(
        self, modality: Modality, grid: tuple[int, int], prompt: tuple[int, ...]
    ) -> Target:
        """A target of as many codes, all still to be found."""
        ids = torch.full((grid[0] * grid[1],), Vocabulary.mask_id(modality))
        return Target(modality, ids, grid, prompt)

    def pictures(self, targets: Sequence[Target]) -> list[np.ndarray]:
        """(H, W, 3) uint8 pictures of vision targets."""
        start = self.vocabulary.vision.start
        return self.tokenizers.pictures([(t.ids - start).view(t.grid) for t in targets])

    def waveforms(self, targets: Sequence[Target]) -> list[np.ndarray]:
        """Float32 samples in [-1, 1] of speech targets."""
        start = self.vocabulary.speech.start
        return self.tokenizers.waveforms([t.ids - start for t in targets])

    def num_codes(self, modality: Modality) -> int:
        """Codes that the tokenizer of a modality has; 0 without one."""
        tokenizer = self._tokenizer(modality)
        return 0 if tokenizer is None else tokenizer.config.num_codes

    def fingerprint(self, modality: Modality) -> str:
        """What tells the tokenizer of a modality from others; empty without one."""
        tokenizer = self._tokenizer(modality)
        return "" if tokenizer is None else fingerprint(tokenizer)[:16]

    def _tokenizer(self, modality: Modality) -> VisionTokenizer | SpeechTokenizer | None:
        if modality is Modality.TEXT:
            return None
        return self.tokenizers.vision if modality is Modality.VISION else self.tokenizers.speech

    def _ids(self, media: Sequence[Medium]) -> list[Tensor]:
        """Unified ids (h, w) of pictures, (n,) of speech."""
        if not media:
            return []
        modality = media[0].modality
        start = self.vocabulary.range_of(modality).start
        if modality is Modality.VISION:
            size = self.config.vision_input.patch_size
            pixels = [unpatched(medium.features, medium.grid, size) for medium in media]
            local = self.tokenizers.image_codes(pixels)
        else:
            local = self.tokenizers.speech_codes([medium.features for medium in media])
        return [codes + start for codes in local]


def _check(name: str, codes: int, capacity: int) -> None:
    if codes > capacity:
        raise ConfigError(
            f"model.vocabulary.{name}: {capacity} ids are too few for the {codes} codes of the "
            f"{name} tokenizer"
        )


def _check_cells(name: str, codes: int, expected: int) -> None:
    if codes != expected:
        raise ConfigError(
            f"model.{name}_codes: must be {codes}, so many codes of the {name} tokenizer lie in "
            f"one token, got {expected}"
        )
