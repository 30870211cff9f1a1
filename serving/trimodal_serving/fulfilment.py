"""Orders carried out: from what is observed, through the scheduler, to texts, pictures and speech.

made = await fulfilment.generate(Order(item, to=Modality.VISION))
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from trimodal.batch import Modality, Sample
from trimodal.config import ModelConfig
from trimodal.errors import ConfigError, DataError
from trimodal_serving.admission import Admission
from trimodal_serving.codes import Codec
from trimodal_serving.composition import Task, passes
from trimodal_serving.decoders import Decoders, check_lengths, most_tokens
from trimodal_serving.errors import rejected
from trimodal_serving.generations import Told
from trimodal_serving.inputs import Input
from trimodal_serving.orders import Order, check_answers, check_generates, unsupported
from trimodal_serving.scheduler import Scheduler, in_order

if TYPE_CHECKING:  # slow to import; the model does so in its own thread
    from trimodal.models import TrimodalModel
    from trimodal.models.decoding import Decoding, Grown
    from trimodal.models.generation import Request
    from trimodal.processors import TrimodalProcessor

Hearing: TypeAlias = "asyncio.Queue[Grown | None]"
"""What there is after each step; None comes last."""
MOST_NEW_TOKENS = 64
"""Pieces that a text may have, even if the model reads none as long."""


@dataclass(frozen=True)
class Made:
    """The answer to one order."""

    outputs: Sequence[str | np.ndarray]
    """Texts, (H, W, 3) uint8 pictures, or (S,) float32 samples at `sample_rate`."""
    tokens: Mapping[Modality, int]
    """Tokens of what was observed by modality, and of the beginning."""
    new_tokens: int
    """Ids that were generated, of all outputs."""
    cut: bool
    """Whether a text was as long as it might be before it ended."""
    seconds: float
    """Of the speech that was observed."""
    sample_rate: int


class Fulfilment:
    """Carries out orders with a model; they are admitted and scheduled like everything."""

    def __init__(
        self,
        model: "TrimodalModel",
        processor: "TrimodalProcessor",
        decoders: Decoders,
        admission: Admission,
        scheduler: Scheduler,
        codec: Codec,
    ) -> None:
        self._model = model
        self._processor = processor
        self._decoders = decoders
        self._admission = admission
        self._scheduler = scheduler
        self._codec = codec

    async def generate(self, order: Order, told: Told | None = None) -> Made:
        """Generate the outputs of an order; cancelling this gives up what is not made yet.

        Args:
            order: what to generate from what.
            told: called with what there is of the first output after each step.

        Raises:
            ServingError: full, an order that this model cannot carry out, or a medium
                that cannot be used.
        """
        where = order.item.where
        beginning = [] if order.begun is None else [Input(where, {Modality.TEXT: order.begun})]
        inputs = [*([order.item] if order.item.media else []), *beginning]
        check_lengths(inputs, self._processor.config.max_text_tokens)
        request, decoding, room = _settings(order, self._model)
        observed = sum(most_tokens(one, self._model.architecture) for one in inputs)
        most = len(order.seeds) * _most_cost(request, decoding, observed, room)
        with self._admission.admit(most) as ticket:
            samples = await self._decoders.samples(inputs, self._processor)
            begun = samples.pop().media[Modality.TEXT] if beginning else None
            sample = samples[0] if samples else Sample(where, {}, 0)
            tasks = [Task(sample, begun, request, decoding, seed, room) for seed in order.seeds]
            ticket.settle(sum(task.cost for task in tasks))
            hears = [told, *[None] * (len(tasks) - 1)]
            futures = [self._scheduler.generate(*pair) for pair in zip(tasks, hears, strict=True)]
            made = await in_order(futures, [order.item] * len(futures))
        tokens = {m: medium.num_tokens for m, medium in sample.media.items()}
        start = 0 if begun is None else begun.num_tokens
        if start:
            tokens[Modality.TEXT] = tokens.get(Modality.TEXT, 0) + start
        lengths = [len(one.target.ids) - start for one in made]
        return Made(
            [one.output for one in made],
            tokens,
            sum(lengths),
            order.to is Modality.TEXT and max(lengths) >= decoding.max_tokens,
            _seconds(sample, self._model.architecture),
            self._model.sample_rate,
        )

    async def stream(self, order: Order) -> AsyncGenerator[str | np.ndarray | Made, None]:
        """A text as it grows, pictures on the way to one, or samples; then what `generate` returns.

        The pieces of an utterance are its samples, of which none is told that might still change,
        or if the order asks for partial outputs all samples of utterances on the way to it.
        """
        told: Hearing = asyncio.Queue()
        task = asyncio.create_task(self.generate(order, told.put_nowait))
        task.add_done_callback(lambda _: told.put_nowait(None))
        pieces = {
            Modality.TEXT: self._grown,
            Modality.VISION: self._sketched,
            Modality.SPEECH: self._sketched if order.partial else self._voiced,
        }[order.to]
        try:
            async with contextlib.aclosing(pieces(order, told, task)) as shown:
                async for piece in shown:
                    yield piece
            yield await task
        finally:
            if not task.cancel() and not task.cancelled():
                task.exception()  # looked at, so that asyncio does not complain about it

    async def _grown(
        self, _: Order, told: Hearing, task: "asyncio.Task[Made]"
    ) -> AsyncGenerator[str, None]:
        """What a text gains; a character whose bytes have not all come yet is held back."""
        sent = ""
        while (grown := await told.get()) is not None:
            whole = self._processor.text.decode(grown.ids).rstrip("\ufffd")
            if len(whole) > len(sent) and whole.startswith(sent):
                yield whole[len(sent) :]
                sent = whole
        rest = str((await task).outputs[0])[len(sent) :]
        if rest:
            yield rest

    async def _sketched(
        self, order: Order, told: Hearing, _: "asyncio.Task[Made]"
    ) -> AsyncGenerator[np.ndarray, None]:
        """A picture or utterance as it would be after some of the steps, which lie evenly."""
        from trimodal.models.generation import code_grid  # slow to import; the model has done so

        request, decoding = order.settings()
        parts = order.partial + 1
        shown = {round(decoding.steps * part / parts) for part in range(1, parts)} - {0}
        step = 0
        while (grown := await told.get()) is not None:
            step += 1
            if step not in shown or step >= decoding.steps:
                continue
            if order.to is Modality.SPEECH:
                yield await self._codec.sound(grown.ids)
            else:
                yield await self._codec.picture(grown.ids, code_grid(self._model, request))

    async def _voiced(
        self, _: Order, told: Hearing, task: "asyncio.Task[Made]"
    ) -> AsyncGenerator[np.ndarray, None]:
        """The sound of the first codes as soon as it is final, then that of all others."""
        sent = 0
        while (grown := await told.get()) is not None:
            if grown.final == len(grown.ids):
                break
            end = self._codec.settled_samples(grown.final)
            if end > sent:
                # of all ids, though most are still guesses: sizes decide how numbers are rounded
                yield (await self._codec.sound(grown.ids))[sent:end]
                sent = end
        samples = (await task).outputs[0]
        assert isinstance(samples, np.ndarray)  # noqa: S101 - speech is
        yield samples[sent:]


def _most_cost(request: "Request", decoding: "Decoding", observed: int, room: int) -> int:
    copies = 1 if decoding.guidance == 1 else 2
    return copies * (2 * observed + passes(request, decoding) * room)


def _settings(order: Order, model: "TrimodalModel") -> "tuple[Request, Decoding, int]":
    """How the library calls what is ordered, and the ids of an output at most."""
    from trimodal.models.generation import check_room  # slow to import; the model has done so

    check_generates(order.to, model.config.generates, None)
    check_answers(order, model.config.answers)
    request, decoding = order.settings()
    longest = max(MOST_NEW_TOKENS, model.architecture.max_text_tokens)
    decoding = replace(decoding, max_tokens=min(decoding.max_tokens, longest))
    try:
        return request, decoding, check_room(model, request, decoding)
    except DataError as error:
        raise rejected(error, "size") from None
    except ConfigError as error:
        raise unsupported(str(error), None) from None


def _seconds(sample: Sample, architecture: ModelConfig) -> float:
    """How long the speech of a sample is."""
    speech = sample.media.get(Modality.SPEECH)
    return 0.0 if speech is None else len(speech.features) * architecture.speech_input.hop_ms / 1000
