"""Media as codes of the tokenizers that belong to the model, and codes as media.

codes = await codec.encode(item); made = await codec.decode(Modality.VISION, codes.rows)
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trimodal.batch import Medium, Modality, Target
from trimodal_serving.admission import Admission
from trimodal_serving.decoders import Decoders, check_lengths, most_tokens
from trimodal_serving.errors import ServingError, internal, nonfinite
from trimodal_serving.inputs import Input
from trimodal_serving.turnstile import Turnstile

if TYPE_CHECKING:
    from trimodal.processors import TrimodalProcessor
    from trimodal.processors.codes import CodeProcessor

T = TypeVar("T")


@dataclass(frozen=True)
class Codes:
    """The codes of one medium."""

    rows: list[list[int]]
    """Those of a picture row by row; one row of the pieces of a text or the codes of speech."""
    size: int
    """Codes that there are."""
    tokens: int
    """Of the model that they stand for."""


class Codec:
    """Encodes and decodes in the thread of the model, under the bound on the work inside.

    One medium at a time, so that batches wait for no more, and callers take turns.
    """

    def __init__(
        self,
        processor: "TrimodalProcessor",
        decoders: Decoders,
        admission: Admission,
        executor: Executor,
    ) -> None:
        self._processor = processor
        self._decoders = decoders
        self._admission = admission
        self._executor = executor
        self._turnstile = Turnstile()

    async def encode(self, item: Input) -> Codes:
        """The codes of the one medium of an input.

        Raises:
            ServingError: full, a medium that cannot be used, or one without a tokenizer.
        """
        (modality,) = item.media
        size = self._size(modality)
        architecture = self._processor.config
        check_lengths([item], architecture.max_text_tokens)
        with self._admission.admit(most_tokens(item, architecture)):
            (sample,) = await self._decoders.samples([item], self._processor)
            medium = sample.media[modality]
            rows = await self._run(lambda: self._encoded(medium), medium.num_tokens)
        return Codes(rows, size, medium.num_tokens)

    async def decode(self, modality: Modality, rows: Sequence[Sequence[int]]) -> str | np.ndarray:
        """A text, an (H, W, 3) uint8 picture, or (S,) float32 samples in [-1, 1].

        Args:
            modality: what the codes are of.
            rows: as `Codes` has them.

        Raises:
            ServingError: full, codes that there are not, or more than a medium may have.
        """
        self._check(modality, rows)
        number = sum(map(len, rows))
        with self._admission.admit(number):
            return await self._run(lambda: self._decoded(modality, rows), number)

    async def picture(self, ids: Sequence[int], grid: tuple[int, int]) -> np.ndarray:
        """(H, W, 3) uint8: what unified ids of a request that is inside look like."""
        import torch  # the model has imported it by now

        target = Target(Modality.VISION, torch.tensor(ids, dtype=torch.int64), grid, ())
        return await self._run(lambda: self._codes().pictures([target])[0], len(ids))

    async def sound(self, ids: Sequence[int]) -> np.ndarray:
        """(S,) float32: what unified ids of a request that is inside sound like.

        Raises:
            ServingError: it is not finite.
        """
        import torch  # the model has imported it by now

        target = Target(Modality.SPEECH, torch.tensor(ids, dtype=torch.int64), (len(ids), 1), ())
        samples = await self._run(lambda: self._codes().waveforms([target])[0], len(ids))
        if not np.isfinite(samples).all():
            raise nonfinite()
        return samples

    def settled_samples(self, codes: int) -> int:
        """Samples of an utterance that only depend on so many of its first codes."""
        return self._codes().tokenizers.settled_samples(codes)

    async def _run(self, work: Callable[[], T], tokens: int) -> T:
        loop = asyncio.get_running_loop()
        async with self._turnstile.turn(tokens):
            try:
                return await loop.run_in_executor(self._executor, work)
            except Exception as error:
                raise internal(cause=error) from error

    def _codes(self) -> "CodeProcessor":
        codes = self._processor.codes
        assert codes is not None  # noqa: S101 - `_size` was asked before
        return codes

    def _size(self, modality: Modality) -> int:
        """Codes that there are of a modality."""
        codes = self._processor.codes
        if modality is Modality.TEXT:
            return self._processor.text.num_pieces
        size = 0 if codes is None else codes.num_codes(modality)
        if not size:
            message = f"this model has no tokenizer of {modality.data_name}"
            raise ServingError(400, "unsupported_operation", message, param="modality")
        return size

    def _most(self, modality: Modality) -> int:
        """Codes that a medium may have."""
        sizes = self._processor.config
        if modality is Modality.TEXT:
            return sizes.max_text_tokens
        if modality is Modality.VISION:
            return sizes.vision_input.max_tokens * sizes.vision_codes
        frames = sizes.speech_input.max_seconds * 1000 / sizes.speech_input.hop_ms
        return math.ceil(frames / sizes.speech_input.stride) * sizes.speech_codes

    def _check(self, modality: Modality, rows: Sequence[Sequence[int]]) -> None:
        size, most = self._size(modality), self._most(modality)
        if any(not 0 <= code < size for row in rows for code in row):
            raise _bad(f"must be from 0 to {size - 1}")
        if sum(map(len, rows)) > most:
            raise _bad(f"are more than {most}, which is the limit")
        if len({len(row) for row in rows}) != 1 or not rows[0]:
            raise _bad("must be rows of one length")
        if modality is not Modality.VISION and len(rows) != 1:
            raise _bad("must be one row")

    def _encoded(self, medium: Medium) -> list[list[int]]:
        vocabulary = self._processor.text.vocabulary
        start = vocabulary.range_of(medium.modality).start
        if medium.modality is Modality.TEXT:
            return [(medium.features - start).tolist()]
        target = self._codes().target(medium, ())
        shape = target.grid if medium.modality is Modality.VISION else (1, -1)
        return (target.ids - start).view(shape).tolist()

    def _decoded(self, modality: Modality, rows: Sequence[Sequence[int]]) -> str | np.ndarray:
        import torch  # the model has imported it by now

        start = self._processor.text.vocabulary.range_of(modality).start
        ids = torch.tensor(rows, dtype=torch.int64).flatten() + start
        if modality is Modality.TEXT:
            return self._processor.text.decode(ids.tolist())
        grid = (len(rows), len(rows[0])) if modality is Modality.VISION else (len(rows[0]), 1)
        codes, target = self._codes(), Target(modality, ids, grid, ())
        if modality is Modality.VISION:
            return codes.pictures([target])[0]
        return codes.waveforms([target])[0]


def _bad(problem: str) -> ServingError:
    return ServingError(400, "invalid_codes", f"`codes` {problem}", param="codes")
