"""POST /v1/audio/transcriptions and /v1/audio/translations: an uploaded utterance to a text.

reply = await transcribe(engine, "demo", "multipart/form-data; boundary=…", body)
"""

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimodal.batch import Modality
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields
from trimodal_serving.forms import parse_form
from trimodal_serving.fulfilment import Made
from trimodal_serving.inputs import Input
from trimodal_serving.media import RawMedium
from trimodal_serving.orders import (
    Order,
    check_generates,
    language_of,
    take_decoding,
    take_language,
    take_seed,
)
from trimodal_serving.replies import Events, Reply, rendered, streamed

if TYPE_CHECKING:
    from trimodal_serving.service import Service

FORMATS = ("json", "text", "verbose_json")
NAMES = {"en": "english", "zh": "chinese"}
"""What OpenAI's protocol calls the languages in answers."""

_LITERALS = ("temperature", "stream", "seed")


@dataclass(frozen=True)
class TranscriptionRequest:
    """A request whose form is right; its file has not been opened yet."""

    order: Order
    form: str
    """One of `FORMATS`."""
    stream: bool


async def transcribe(engine: "Service", name: str, content_type: str, body: bytes) -> Reply:
    """The words of an utterance.

    Raises:
        ServingError: the request cannot be served.
    """
    generates = engine.generates
    request = await asyncio.to_thread(parse, content_type, body, name, generates)
    if request.stream:
        return await streamed(_events(engine, request))
    return _rendered(request, await engine.generate(request.order), "transcribe")


async def translate(engine: "Service", name: str, content_type: str, body: bytes) -> Reply:
    """What an utterance says, in English.

    Raises:
        ServingError: the request cannot be served.
    """
    generates = engine.generates
    request = await asyncio.to_thread(parse, content_type, body, name, generates, "en")
    return _rendered(request, await engine.generate(request.order), "translate")


def parse(
    content_type: str, body: bytes, served: str, generates: tuple[str, ...], lang: str | None = None
) -> TranscriptionRequest:
    """Read a form.

    Args:
        content_type: with the form's boundary.
        body: of the request.
        served: the only model name that is answered.
        generates: what the model learnt to generate.
        lang: the language of the text, if the request does not say it.

    Raises:
        ServingError: a field that is wrong, missing, unknown or not supported.
    """
    form = parse_form(content_type, body)
    values = {key: _value(key, text) for key, text in form.fields.items() if text != ""}
    fields = Fields(values)
    fields.model(served)
    check_generates(Modality.TEXT, generates, None)
    if "file" not in form.files:
        raise fields.refusal("file", "missing_field", "is missing, or is not sent as a file")
    if len(form.files) > 1:
        raise ServingError(400, "unknown_field", "the form has more files than `file`")
    shape = _shape(fields)
    _refuse(fields)
    translated = lang is not None
    stream = False if translated else fields.flag("stream")
    if stream and shape != "json":
        raise fields.refusal("response_format", "unsupported_format", "must be json in a stream")
    lang = lang or take_language(fields, "language")
    decoding, seed = take_decoding(fields, "temperature"), take_seed(fields)
    fields.end()
    try:
        media = {Modality.SPEECH: RawMedium(Modality.SPEECH, form.files["file"])}
    except ServingError as error:
        raise error.at("file") from None
    order = Order(
        item=Input("file", media), to=Modality.TEXT, lang=lang, decoding=decoding, seeds=(seed,)
    )
    return TranscriptionRequest(order, shape, stream)


def _value(key: str, text: str) -> Any:
    """Forms hold strings; those of numbers and truth values are read as JSON."""
    try:
        return json.loads(text) if key in _LITERALS else text
    except (ValueError, RecursionError):
        return text


def _shape(fields: Fields) -> str:
    shape = fields.take("response_format", "json")
    if shape not in FORMATS:
        why = ": this model gives no times" if shape in ("srt", "vtt") else ""
        message = f"must be one of {', '.join(FORMATS)}{why}"
        raise fields.refusal("response_format", "unsupported_format", message)
    return shape


def _refuse(fields: Fields) -> None:
    why = "this model gives no times"
    for key in ("timestamp_granularities", "timestamp_granularities[]"):
        fields.neutral(why, **{key: ("segment",)})
    fields.neutral("nothing but the utterance is heard", prompt=())
    fields.neutral("an utterance is heard as a whole", chunking_strategy=("auto",))
    for key in ("include", "include[]"):
        fields.neutral("no probabilities are given", **{key: ()})


def _rendered(request: TranscriptionRequest, made: Made, task: str) -> Reply:
    text = str(made.outputs[0])
    if request.form == "text":
        return Reply(f"{text}\n".encode(), "text/plain; charset=utf-8")
    if request.form == "json":
        return rendered({"text": text, "usage": _usage(made)})
    return rendered(
        {
            "task": task,
            "language": NAMES[request.order.lang or language_of(text)],
            "duration": round(made.seconds, 3),
            "text": text,
            "usage": {"type": "duration", "seconds": max(1, round(made.seconds))},
        }
    )


def _usage(made: Made) -> dict[str, Any]:
    heard = made.tokens[Modality.SPEECH]
    return {
        "type": "tokens",
        "input_tokens": heard,
        "output_tokens": made.new_tokens,
        "total_tokens": heard + made.new_tokens,
        "input_token_details": {"audio_tokens": heard, "text_tokens": 0},
    }


async def _events(engine: "Service", request: TranscriptionRequest) -> Events:
    async for piece in engine.stream(request.order):
        if isinstance(piece, str):
            yield {"type": "transcript.text.delta", "delta": piece}
        elif isinstance(piece, Made):
            text = piece.outputs[0]
            yield {"type": "transcript.text.done", "text": text, "usage": _usage(piece)}
