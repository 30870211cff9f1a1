"""POST /v1/chat/completions: one message in, a text, speech or a picture out.

reply = await answer(engine, "demo", "application/json", body)
"""

import asyncio
import base64
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trimodal.batch import Modality
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields, check_json, parse_json
from trimodal_serving.fulfilment import Made
from trimodal_serving.inputs import Input, Source, parse_content
from trimodal_serving.media import RawMedium
from trimodal_serving.orders import (
    EXTENSION,
    Order,
    check_generates,
    language_of,
    take_decoding,
    take_language,
    take_seed,
    unsupported,
)
from trimodal_serving.replies import Events, Reply, details, rendered, streamed
from trimodal_serving.sounds import check_format, check_voice, encode

if TYPE_CHECKING:
    from trimodal_serving.service import Service

TASKS = ("describe", "answer", "complete")
NEEDS = {"answer": {Modality.TEXT, Modality.SPEECH}, "complete": {Modality.TEXT}}
"""By task the media of which a message must have one: a question may be spoken."""
WHERE = "messages[0].content"
AUDIO_SECONDS = 3600
"""After which the `id` of an audio would expire; nothing is kept here."""

_AUDIO = {"wav": "wav", "mp3": "mp3", "flac": "flac", "opus": "opus", "pcm16": "pcm"}
_IGNORED = ("user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key")


@dataclass(frozen=True)
class ChatRequest:
    """A request whose form is right; the media in it have not been opened yet."""

    order: Order
    audio: str | None
    """The format of an answer that is speech."""
    stream: bool
    with_usage: bool


async def answer(engine: "Service", name: str, content_type: str, body: bytes) -> Reply:
    """Answer a request.

    Raises:
        ServingError: it cannot be served.
    """
    generates = engine.generates
    check_json(content_type)
    request = await asyncio.to_thread(parse, body, name, generates)
    if request.stream:
        return await streamed(_chunks(engine, name, request))
    made = await engine.generate(request.order)
    message: dict[str, Any] = {"role": "assistant", "content": made.outputs[0], "refusal": None}
    if request.order.to is Modality.VISION:
        message |= await asyncio.to_thread(_picture, made)
    elif request.order.to is Modality.SPEECH:
        message |= {"content": None, "audio": await _audio(engine, request, made)}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(made)}
    return rendered(
        _head("chat.completion", name) | {"choices": [choice], "usage": _usage(request.order, made)}
    )


def parse(body: bytes, served: str, generates: tuple[str, ...]) -> ChatRequest:
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
    media = _media(fields.need("messages"))
    to, audio = _target(fields)
    check_generates(to, generates, "modalities")
    extension = fields.inner(EXTENSION)
    stream = fields.flag("stream")
    with_usage = _stream_options(fields)
    decoding = take_decoding(fields, "temperature", "top_p") | _most_tokens(fields)
    names = ("guidance", "steps", "schedule", "choice_temperature", "redraws")
    decoding |= take_decoding(extension, *names)
    order = _order(media, to, extension)
    order = replace(order, decoding=decoding, seeds=(take_seed(fields),))
    _refuse(fields)
    fields.pass_over(*_IGNORED)
    extension.end()
    fields.end()
    if stream and to is not Modality.TEXT:
        raise fields.refusal("stream", "unsupported_field", "is for texts alone")
    return ChatRequest(order, audio, stream, with_usage)


def _media(messages: Any) -> dict[Modality, Source]:
    """The media of the one message."""
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise ServingError(
            400, "invalid_type", "`messages` must be a list of objects", param="messages"
        )
    if [one.get("role") for one in messages] != ["user"]:
        raise ServingError(
            400,
            "unsupported_messages",
            "`messages` must hold one message, of the role user: this model has no dialogue, so "
            "system messages and earlier turns would be ignored",
            param="messages",
        )
    message = Fields(messages[0], "messages[0]")
    content = message.need("content")
    message.pass_over("role", "name")
    message.end()
    try:
        return parse_content(content)
    except ServingError as error:
        raise error.at(WHERE) from None


def _target(fields: Fields) -> tuple[Modality, str | None]:
    """What is to be generated, and the format of speech."""
    modalities = fields.take("modalities", ["text"])
    kinds = set(modalities) if _are_words(modalities) else set()
    audio = fields.inner("audio")
    if kinds <= {"text", "image"} and kinds:
        audio.end()
        return (Modality.VISION if "image" in kinds else Modality.TEXT), None
    if kinds not in ({"audio"}, {"text", "audio"}):
        raise fields.refusal(
            "modalities",
            "invalid_modalities",
            'must be ["text"], ["text", "audio"] or ["text", "image"]',
        )
    check_voice(audio.need("voice"), "audio.voice")
    form = check_format(audio.need("format"), _AUDIO, "audio.format")
    audio.end()
    return Modality.SPEECH, form


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _most_tokens(fields: Fields) -> dict[str, int]:
    given = [fields.whole(key, 1, 2**31) for key in ("max_completion_tokens", "max_tokens")]
    return next(({"max_tokens": most} for most in given if most is not None), {})


def _stream_options(fields: Fields) -> bool:
    options = fields.inner("stream_options")
    with_usage = options.flag("include_usage")
    options.pass_over("include_obfuscation")
    options.end()
    return with_usage


def _refuse(fields: Fields) -> None:
    """Fields that would change the meaning; their neutral values are let through."""
    fields.neutral("an answer has one choice", n=(1,))
    fields.neutral(
        "this model calls nothing",
        tools=([],),
        tool_choice=("none", "auto"),
        parallel_tool_calls=(True, False),
        functions=([],),
        function_call=("none", "auto"),
        web_search_options=(),
    )
    fields.neutral("no probabilities are given", logprobs=(False,), top_logprobs=(0,))
    fields.neutral("answers are plain text", response_format=({"type": "text"},))
    fields.neutral(
        "texts end where the model ends them",
        stop=([],),
        logit_bias=({},),
        presence_penalty=(0,),
        frequency_penalty=(0,),
    )
    fields.neutral("this model does not reason", reasoning_effort=("none",), verbosity=("medium",))
    fields.neutral("nothing is predicted", prediction=())


def _order(media: dict[Modality, Source], to: Modality, extension: Fields) -> Order:
    """What a message asks for, see docs/serving.md."""
    text, lang = media.get(Modality.TEXT), take_language(extension)
    asked = len(media) > 1 and text is not None and to is Modality.TEXT
    task = extension.choice("task", TASKS, "answer" if asked else "describe")
    needed = NEEDS.get(str(task), frozenset())
    if needed and not needed & media.keys():
        names = " or ".join(m.data_name for m in Modality if m in needed)
        raise unsupported(f"to {task}, the message needs {names}", WHERE)
    if task != "describe" and to is not Modality.TEXT:
        raise unsupported(f"to {task} gives a text; `modalities` asks for more", "modalities")
    if task == "complete":
        rest = {m: source for m, source in media.items() if m is not Modality.TEXT}
        return Order(item=Input(WHERE, rest), to=to, lang=lang, begun=str(text))
    if task == "describe" and to is Modality.TEXT and media.keys() == {Modality.TEXT}:
        lang = lang or ("en" if language_of(str(text)) == "zh" else "zh")
    return Order(item=Input(WHERE, media), to=to, lang=lang, answer=task == "answer")


def _head(kind: str, name: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": name,
    }


def _reason(made: Made) -> str:
    return "length" if made.cut else "stop"


def _usage(order: Order, made: Made) -> dict[str, Any]:
    prompt = sum(made.tokens.values())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made.new_tokens,
        "total_tokens": prompt + made.new_tokens,
        "prompt_tokens_details": details(made.tokens),
        "completion_tokens_details": details({order.to: made.new_tokens}),
    }


def _picture(made: Made) -> Mapping[str, Any]:
    from trimodal.processors.encoding import picture_bytes

    assert isinstance(made.outputs[0], np.ndarray)  # noqa: S101 - pictures are
    data = base64.b64encode(picture_bytes(made.outputs[0])).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    return {"content": [part], "images": [part]}


async def _audio(engine: "Service", request: ChatRequest, made: Made) -> dict[str, Any]:
    """The speech, and what the model hears in it."""
    samples = made.outputs[0]
    assert isinstance(samples, np.ndarray)  # noqa: S101 - speech is
    data, _ = await asyncio.to_thread(encode, samples, made.sample_rate, request.audio or "wav")
    transcript = ""
    if Modality.TEXT.data_name in engine.generates:
        wav, _ = await asyncio.to_thread(encode, samples, made.sample_rate, "wav")
        heard = Input(WHERE, {Modality.SPEECH: RawMedium(Modality.SPEECH, wav)})
        order = Order(item=heard, to=Modality.TEXT, lang=request.order.lang)
        transcript = (await engine.generate(order)).outputs[0]
    return {
        "id": f"audio_{uuid.uuid4().hex}",
        "data": base64.b64encode(data).decode(),
        "expires_at": int(time.time()) + AUDIO_SECONDS,
        "transcript": transcript,
    }


async def _chunks(engine: "Service", name: str, request: ChatRequest) -> Events:
    """The text as it grows, in the objects that OpenAI's clients put together."""
    head = _head("chat.completion.chunk", name)
    if request.with_usage:
        head["usage"] = None

    def chunk(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return head | {"choices": [choice]}

    first = {"role": "assistant", "content": ""}
    async for piece in engine.stream(request.order):
        if first:
            yield chunk(first)
            first = {}
        if isinstance(piece, str):
            yield chunk({"content": piece})
        elif isinstance(piece, Made):
            yield chunk({}, _reason(piece))
            if request.with_usage:
                yield head | {"choices": [], "usage": _usage(request.order, piece)}
