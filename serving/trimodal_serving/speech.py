"""POST /v1/audio/speech: a text read aloud.

reply = await answer(engine, "demo", "application/json", body)
"""

import asyncio
import base64
import contextlib
import itertools
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trimodal.batch import Modality
from trimodal_serving.fields import Fields, check_json, parse_json
from trimodal_serving.fulfilment import Made
from trimodal_serving.inputs import Input
from trimodal_serving.orders import (
    EXTENSION,
    Order,
    check_generates,
    language_of,
    take_decoding,
    take_language,
    take_partial,
    take_seed,
)
from trimodal_serving.replies import Events, Reply, poured, streamed
from trimodal_serving.sounds import (
    FORMATS,
    GROWING,
    VOICE,
    beginning,
    check_format,
    check_voice,
    encode,
    media_type,
)

if TYPE_CHECKING:
    from trimodal_serving.service import Service

MAX_CHARACTERS = 4096
PIECE = 24 * 1024
"""Bytes of a file in one event."""

VOICES = {"voices": [{"id": VOICE, "name": VOICE}]}
"""The answer to GET /v1/audio/voices."""


@dataclass(frozen=True)
class SpeechRequest:
    """A request whose form is right."""

    order: Order
    form: str
    """One of `FORMATS`."""
    stream: str | None
    """`sse` for the file in events, `audio` for its bytes as they come, None for all at once."""


@dataclass(frozen=True)
class Draft:
    """What an utterance would be after some of the steps."""

    file: bytes


async def answer(engine: "Service", name: str, content_type: str, body: bytes) -> Reply:
    """Read a text aloud.

    Raises:
        ServingError: it cannot be served.
    """
    generates = engine.generates
    check_json(content_type)
    request = await asyncio.to_thread(parse, body, name, generates)
    if request.stream == "sse":
        return await streamed(_events(engine, request))
    if request.stream == "audio" and request.form in GROWING:
        kind = media_type(engine.architecture.speech_input.sample_rate, request.form)
        return await poured(_bytes(engine, request), kind)
    data, kind, _ = await _spoken(engine, request)
    return Reply(data, kind)


async def _spoken(engine: "Service", request: SpeechRequest) -> tuple[bytes, str, Made]:
    """The bytes of a file, its media type, and what it cost."""
    made = await engine.generate(request.order)
    samples = made.outputs[0]
    assert isinstance(samples, np.ndarray)  # noqa: S101 - speech is
    file = await asyncio.to_thread(encode, samples, made.sample_rate, request.form)
    return *file, made


async def _events(engine: "Service", request: SpeechRequest) -> Events:
    """What it would be after some of the steps, if that is asked for, then the file in pieces."""
    index = itertools.count()
    source = _drafted if request.order.partial else _pieces
    async with contextlib.aclosing(source(engine, request)) as pieces:
        async for data in pieces:
            if isinstance(data, Made):
                yield {"type": "speech.audio.done", "usage": _usage(data)}
                return
            if isinstance(data, Draft):
                file = base64.b64encode(data.file).decode()
                yield {"type": "speech.audio.partial", "audio": file, "partial_index": next(index)}
                continue
            for start in range(0, len(data), PIECE):
                piece = base64.b64encode(data[start : start + PIECE]).decode()
                yield {"type": "speech.audio.delta", "audio": piece}


async def _bytes(engine: "Service", request: SpeechRequest) -> AsyncGenerator[bytes, None]:
    """The file in pieces, without what it cost."""
    async with contextlib.aclosing(_pieces(engine, request)) as pieces:
        async for data in pieces:
            if isinstance(data, bytes):
                yield data


async def _drafted(
    engine: "Service", request: SpeechRequest
) -> AsyncGenerator[Draft | bytes | Made, None]:
    """What it would be after some of the steps, the file, and its cost."""
    rate = engine.architecture.speech_input.sample_rate
    async with contextlib.aclosing(engine.stream(request.order)) as pieces:
        async for piece in pieces:
            samples = piece.outputs[0] if isinstance(piece, Made) else piece
            assert isinstance(samples, np.ndarray)  # noqa: S101 - speech is
            file, _ = await asyncio.to_thread(encode, samples, rate, request.form)
            if isinstance(piece, Made):
                yield file
                yield piece
            else:
                yield Draft(file)


async def _pieces(engine: "Service", request: SpeechRequest) -> AsyncGenerator[bytes | Made, None]:
    """The file, as soon as parts of it are final if its format is one that grows, and its cost."""
    if request.form not in GROWING:
        data, _, made = await _spoken(engine, request)
        yield data
        yield made
        return
    rate = engine.architecture.speech_input.sample_rate
    head = beginning(rate, request.form)
    async with contextlib.aclosing(engine.stream(request.order)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Made):
                yield piece
            elif isinstance(piece, np.ndarray):
                yield head + (await asyncio.to_thread(encode, piece, rate, "pcm"))[0]
                head = b""


def _usage(made: Made) -> dict[str, int]:
    read, spoken = sum(made.tokens.values()), made.new_tokens
    return {"input_tokens": read, "output_tokens": spoken, "total_tokens": read + spoken}


def parse(body: bytes, served: str, generates: tuple[str, ...]) -> SpeechRequest:
    """Read the body of a request.

    Args:
        body: JSON as UTF-8.
        served: the only model name that is answered.
        generates: what the model learnt to generate.

    Raises:
        ServingError: a field that is wrong, missing, unknown or not supported.
    """
    fields = Fields(parse_json(body))
    fields.model(served)
    check_generates(Modality.SPEECH, generates, None)
    text = fields.text("input", MAX_CHARACTERS)
    check_voice(fields.need("voice"), "voice")
    known = {name: name for name in FORMATS}
    form = check_format(fields.take("response_format", "mp3"), known, "response_format")
    fields.neutral("speech comes at the speed of the corpus", speed=(1,))
    fields.neutral("nothing but the text is read", instructions=("",))
    stream = fields.choice("stream_format", ("audio", "sse"))
    fields.pass_over("user")
    extension = fields.inner(EXTENSION)
    lang = take_language(extension) or language_of(text)
    names = ("guidance", "steps", "schedule", "earliness")
    names += ("temperature", "top_p", "choice_temperature")
    decoding, seed = take_decoding(extension, *names), take_seed(fields)
    partial = take_partial(extension, "partial_sounds")
    if partial and stream != "sse":
        problem = 'is for `stream_format: "sse"` alone'
        raise extension.refusal("partial_sounds", "unsupported_field", problem)
    extension.end()
    fields.end()
    item = Input("input", {Modality.TEXT: text})
    order = Order(
        item=item,
        to=Modality.SPEECH,
        lang=lang,
        decoding=decoding,
        seeds=(seed,),
        partial=partial,
    )
    return SpeechRequest(order, form, stream)
