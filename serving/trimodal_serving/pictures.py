"""POST /v1/images/generations: pictures of a text.

reply = await answer(engine, "demo", "application/json", body)
"""

import asyncio
import base64
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trimodal.batch import Modality
from trimodal_serving.fields import Fields, check_json, parse_json
from trimodal_serving.inputs import Input
from trimodal_serving.orders import (
    EXTENSION,
    Order,
    check_generates,
    take_decoding,
    take_seed,
)
from trimodal_serving.replies import Events, Reply, rendered, streamed

if TYPE_CHECKING:
    from trimodal_serving.fulfilment import Made
    from trimodal_serving.service import Service

MAX_PICTURES = 10
MAX_PARTIAL = 3
"""Pictures before they are done that a client may ask for, and the most, not the least, it gets."""
FORMATS = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}


@dataclass(frozen=True)
class PictureRequest:
    """A request whose form is right."""

    order: Order
    form: str
    """One of `FORMATS`."""
    stream: bool


async def answer(engine: "Service", name: str, content_type: str, body: bytes) -> Reply:
    """Draw pictures of a text.

    Raises:
        ServingError: it cannot be served.
    """
    generates = engine.generates
    check_json(content_type)
    request = await asyncio.to_thread(parse, body, name, generates)
    if request.stream:
        return await streamed(_events(engine, request))
    made = await engine.generate(request.order)
    return rendered(await asyncio.to_thread(_tree, request, made))


def parse(body: bytes, served: str, generates: tuple[str, ...]) -> PictureRequest:
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
    check_generates(Modality.VISION, generates, None)
    prompt = fields.text("prompt")
    count = fields.whole("n", 1, MAX_PICTURES) or 1
    size = _size(fields)
    form = fields.choice("output_format", FORMATS, "png", "unsupported_format") or "png"
    seed = take_seed(fields, count)
    fields.neutral("pictures are in the answer itself", response_format=("b64_json",))
    stream = fields.flag("stream")
    fields.whole("partial_images", 0, MAX_PARTIAL)
    fields.neutral("pictures have no transparent parts", background=("auto", "opaque"))
    fields.neutral("there is one quality", quality=("auto", "standard"), style=())
    fields.neutral("files are as their format has them", output_compression=(100,))
    fields.pass_over("user", "moderation")
    extension = fields.inner(EXTENSION)
    names = ("guidance", "steps", "temperature", "top_p", "choice_temperature")
    decoding = take_decoding(extension, *names)
    extension.end()
    fields.end()
    order = Order(
        item=Input("prompt", {Modality.TEXT: prompt}),
        to=Modality.VISION,
        size=size,
        decoding=decoding,
        seeds=range(seed, seed + count),
    )
    return PictureRequest(order, form, stream)


def _size(fields: Fields) -> tuple[int, int] | None:
    """Height and width; clients write WIDTHxHEIGHT."""
    size = fields.take("size", "auto")
    if size == "auto":
        return None
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", size) if isinstance(size, str) else None
    if found is None:
        raise fields.refusal("size", "invalid_size", "must be `auto` or of the form WIDTHxHEIGHT")
    return int(found[2]), int(found[1])


async def _events(engine: "Service", request: PictureRequest) -> Events:
    """Each picture as soon as those before it are done; there are none that are half done."""
    orders = [replace(request.order, seeds=(seed,)) for seed in request.order.seeds]
    tasks = [asyncio.ensure_future(engine.generate(order)) for order in orders]
    try:
        for task in tasks:
            tree = await asyncio.to_thread(_tree, request, await task)
            yield {
                "type": "image_generation.completed",
                "b64_json": tree["data"][0]["b64_json"],
                "created_at": tree["created"],
                "background": "opaque",
                "quality": "auto",
                **{key: tree[key] for key in ("output_format", "size", "usage")},
            }
    finally:
        for task in tasks:
            if not task.cancel() and not task.cancelled():
                task.exception()  # looked at, so that asyncio does not complain about it


def _tree(request: PictureRequest, made: "Made") -> dict[str, Any]:
    pictures = [output for output in made.outputs if isinstance(output, np.ndarray)]
    height, width = pictures[0].shape[:2]
    read, drawn = sum(made.tokens.values()), made.new_tokens
    return {
        "created": int(time.time()),
        "data": [{"b64_json": data} for data in _encoded(pictures, request.form)],
        "output_format": request.form,
        "size": f"{width}x{height}",
        "usage": {
            "input_tokens": read,
            "output_tokens": drawn,
            "total_tokens": read + drawn,
            "input_tokens_details": {"text_tokens": read, "image_tokens": 0},
        },
    }


def _encoded(pictures: Sequence[np.ndarray], form: str) -> list[str]:
    from trimodal.processors.encoding import picture_bytes

    return [base64.b64encode(picture_bytes(one, FORMATS[form])).decode() for one in pictures]
