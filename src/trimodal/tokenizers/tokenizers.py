"""The tokenizers of a model in one place, for lists of media of any sizes.

tokenizers = Tokenizers.load("runs/demo/tokenizers")
codes = tokenizers.image_codes([pixels_3HW, other_3HW])
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.errors import ConfigError, PathError, StorageError
from trimodal.tokenizers.mel import griffin_lim
from trimodal.tokenizers.speech import SpeechTokenizer
from trimodal.tokenizers.stored import CONFIG, Stored, fingerprint
from trimodal.tokenizers.vision import VisionTokenizer
from trimodal.tokenizers.vocoder import Vocoder

MOST_NUMBERS = 2**20
"""Of the pixels or frames that are computed at once."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Tokenizers:
    """Each part is optional; what needs one that is not there raises a `ConfigError`.

    What a medium gives does not depend on what else is in the list.
    """

    vision: VisionTokenizer | None = None
    speech: SpeechTokenizer | None = None
    vocoder: Vocoder | None = None

    def __post_init__(self) -> None:
        if self.speech is None or self.vocoder is None:
            return
        if self.speech.config.speech_input != self.vocoder.config.speech_input:
            raise ConfigError("the vocoder reads other frames than the speech tokenizer gives")

    @property
    def parts(self) -> dict[str, Stored]:
        """What there is, by kind, which is also the name of its folder."""
        given = (self.vision, self.speech, self.vocoder)
        return {part.kind: part for part in given if part is not None}

    def save(self, folder: str | Path) -> None:
        """Write each part into a folder of its own; see `Stored.save`."""
        for kind, part in self.parts.items():
            part.save(Path(folder) / kind)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Self:
        """Read the parts that are there.

        Raises:
            PathError: there is none.
            StorageError: one is damaged or does not fit another.
        """
        folder = Path(folder)
        present = {
            part: part.load(folder / part.kind, device)
            for part in (VisionTokenizer, SpeechTokenizer, Vocoder)
            if (folder / part.kind).exists()
        }
        if not present:
            raise PathError(
                f"{folder} holds no tokenizers: none of vision_tokenizer, speech_tokenizer and "
                f"vocoder with its {CONFIG} is in it"
            )
        try:
            return cls(
                vision=present.get(VisionTokenizer),  # pyright: ignore[reportArgumentType]
                speech=present.get(SpeechTokenizer),  # pyright: ignore[reportArgumentType]
                vocoder=present.get(Vocoder),  # pyright: ignore[reportArgumentType]
            )
        except ConfigError as error:
            raise StorageError(f"{folder}: {error}") from error

    def to(self, device: str | torch.device) -> Self:
        """Move the parts; returns itself."""
        for part in self.parts.values():
            part.to(device)
        return self

    def fingerprints(self) -> dict[str, str]:
        """The SHA-256 of each part, by kind."""
        return {kind: fingerprint(part) for kind, part in self.parts.items()}

    def image_codes(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """(3, H, W) values in [-1, 1] to (h, w) int64 on the CPU.

        Raises:
            DataError: a side is no multiple of the stride.
        """
        tokenizer = _given(self.vision, "vision tokenizer")
        return _batched(pixels, tokenizer, tokenizer.encode)

    def speech_codes(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """Normalised (F, M) frames to (T,) int64 on the CPU; zeros fill the last code."""
        tokenizer = _given(self.speech, "speech tokenizer")
        stride = tokenizer.config.stride
        whole = [F.pad(frames_FM, (0, 0, 0, -len(frames_FM) % stride)) for frames_FM in frames]
        return _batched(whole, tokenizer, tokenizer.encode)

    def pictures(self, codes: Sequence[Tensor]) -> list[np.ndarray]:
        """(h, w) codes to (H, W, 3) uint8 arrays."""
        tokenizer = _given(self.vision, "vision tokenizer")
        pixels = _batched(codes, tokenizer, tokenizer.decode, 3 * tokenizer.config.stride**2)
        return [((p.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy() for p in pixels]

    def frames(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """(T,) codes to (T * stride, M) normalised frames on the CPU."""
        tokenizer = _given(self.speech, "speech tokenizer")
        spread = tokenizer.config.stride * tokenizer.config.speech_input.num_mels
        return _batched(codes, tokenizer, tokenizer.decode, spread)

    def waveforms(self, codes: Sequence[Tensor]) -> list[np.ndarray]:
        """(T,) codes to float32 samples in [-1, 1], by the vocoder or else by Griffin and Lim."""
        frames = self.frames(codes)
        if self.vocoder is not None:
            waveforms = _batched(frames, self.vocoder, torch.no_grad()(self.vocoder))
        else:
            tokenizer = _given(self.speech, "speech tokenizer")
            waveforms = _batched(frames, tokenizer, self._griffin_lim)
        return [waveform.clamp(-1, 1).numpy() for waveform in waveforms]

    def settled_samples(self, codes: int) -> int:
        """Samples that do not depend on the codes of an utterance behind so many.

        None without a vocoder: Griffin and Lim's iteration looks at all of an utterance.
        """
        if self.vocoder is None:
            return 0
        decoder = _given(self.speech, "speech tokenizer").decoder
        return self.vocoder.settled(decoder.settled(codes))

    def _griffin_lim(self, frames_NFM: Tensor) -> Tensor:
        config = _given(self.speech, "speech tokenizer").config
        return griffin_lim(frames_NFM, config.speech_input, config.mean, config.std)


def _given(part: T | None, name: str) -> T:
    if part is None:
        raise ConfigError(f"there is no {name}")
    return part


def _batched(
    items: Sequence[Tensor], part: Stored, function: Callable[[Tensor], Tensor], spread: int = 1
) -> list[Tensor]:
    """Apply a function of batches to tensors of several shapes, equal shapes together.

    Args:
        items: in any order, on any device.
        part: on whose device the function computes.
        function: (N, ...) to (N, ...).
        spread: numbers of the medium for one number of an item.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(tuple(item.shape), []).append(i)
    device = next(part.parameters()).device
    results: dict[int, Tensor] = {}
    for members in groups.values():
        size = max(1, MOST_NUMBERS // max(1, items[members[0]].numel() * spread))
        for start in range(0, len(members), size):
            chunk = members[start : start + size]
            given = torch.stack([items[i] for i in chunk]).to(device)
            results.update(zip(chunk, function(given).cpu(), strict=True))
    return [results[i] for i in range(len(items))]
