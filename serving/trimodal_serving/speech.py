"""POST /v1/audio/speech: a text read aloud.

reply = await answer(engine, "demo", "application/json", body)
"""

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from trimodal.batch import Modality
from trimodal_serving.fields import Fields, check_json, parse_json
from trimodal_serving.inputs import Input
from trimodal_serving.orders import (
    EXTENSION,
    Order,
    check_generates,
    language_of,
    take_decoding,
    take_language,
    take_seed,
)
from trimodal_serving.replies import Reply
from trimodal_serving.sounds import FORMATS, VOICE, check_format, check_voice, encode

if TYPE_CHECKING:
    from trimodal_serving.service import Service

MAX_CHARACTERS = 4096

VOICES = {"voices": [{"id": VOICE, "name": VOICE}]}
"""The answer to GET /v1/audio/voices."""


async def answer(engine: "Service", name: str, content_type: str, body: bytes) -> Reply:
    """Read a text aloud.

    Raises:
        ServingError: it cannot be served.
    """
    generates = engine.generates
    check_json(content_type)
    order, form = await asyncio.to_thread(parse, body, name, generates)
    made = await engine.generate(order)
    samples = made.outputs[0]
    assert isinstance(samples, np.ndarray)  # noqa: S101 - speech is
    return Reply(*await asyncio.to_thread(encode, samples, made.sample_rate, form))


def parse(body: bytes, served: str, generates: tuple[str, ...]) -> tuple[Order, str]:
    """Read the body of a request: what to generate, and in which format to send it.

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
    fields.neutral("speech is sent as a whole", stream_format=("audio",))
    fields.pass_over("user")
    extension = fields.inner(EXTENSION)
    lang = take_language(extension) or language_of(text)
    names = ("guidance", "steps", "temperature", "top_p", "choice_temperature")
    decoding, seed = take_decoding(extension, *names), take_seed(fields)
    extension.end()
    fields.end()
    item = Input("input", {Modality.TEXT: text})
    order = Order(item=item, to=Modality.SPEECH, lang=lang, decoding=decoding, seeds=(seed,))
    return order, form
