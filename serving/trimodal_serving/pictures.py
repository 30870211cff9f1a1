"""POST /v1/images/generations: pictures of a text.

reply = await answer(engine, "demo", "application/json", body)
"""

import asyncio
import base64
import contextlib
import itertools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trimodal.batch import Modality
from trimodal_serving.fields import Fields, check_json, parse_json
from trimodal_serving.fulfilment import Made
from trimodal_serving.inputs import Input
from trimodal_serving.orders import (
    EXTENSION,
    Order,
    check_generates,
    take_decoding,
    take_partial,
    take_seed,
)
from trimodal_serving.replies import Events, Reply, rendered, streamed

if TYPE_CHECKING:
    from trimodal_serving.service import Service

MAX_PICTURES = 10
FORMATS = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}

Pieces = asyncio.Queue[str | np.ndarray | Made | Exception]


@dataclass(frozen=True)
class PictureRequest:
    """A request whose form is right."""

    order: Order
    form: str
    """One of `FORMATS`."""
    stream: bool
    partial: int
    """How often each picture is shown before it is done, at most."""


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
    partial = take_partial(fields, "partial_images")
    fields.neutral("pictures have no transparent parts", background=("auto", "opaque"))
    fields.neutral("there is one quality", quality=("auto", "standard"), style=())
    fields.neutral("files are as their format has them", output_compression=(100,))
    fields.pass_over("user", "moderation")
    extension = fields.inner(EXTENSION)
    names = ("guidance", "steps", "schedule", "temperature", "top_p", "choice_temperature")
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
    return PictureRequest(order, form, stream, partial)


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
    """Each picture as soon as those before it are done, and before it what it looked like."""
    orders = [
        replace(request.order, seeds=(seed,), partial=request.partial)
        for seed in request.order.seeds
    ]
    queues: list[Pieces] = [asyncio.Queue() for _ in orders]
    pairs = zip(orders, queues, strict=True)
    tasks = [asyncio.create_task(_follow(engine, *pair)) for pair in pairs]
    try:
        for queue in queues:
            for index in itertools.count():
                piece = await queue.get()
                if isinstance(piece, Exception):
                    raise piece
                yield await asyncio.to_thread(_event, request, piece, index)
                if isinstance(piece, Made):
                    break
    finally:
        for task in tasks:
            task.cancel()


async def _follow(engine: "Service", order: Order, queue: Pieces) -> None:
    """Put into a queue what a stream gives, or what ends it."""
    try:
        async with contextlib.aclosing(engine.stream(order)) as pieces:
            async for piece in pieces:
                queue.put_nowait(piece)
    except Exception as error:
        queue.put_nowait(error)


def _event(request: PictureRequest, piece: str | np.ndarray | Made, index: int) -> dict[str, Any]:
    picture = piece.outputs[0] if isinstance(piece, Made) else piece
    event: dict[str, Any] = {
        "b64_json": _encoded([picture], request.form)[0],
        "created_at": int(time.time()),
        "size": _size_of(picture),
        "output_format": request.form,
        "background": "opaque",
        "quality": "auto",
    }
    if isinstance(piece, Made):
        return {"type": "image_generation.completed", **event, "usage": _usage(piece)}
    return {"type": "image_generation.partial_image", **event, "partial_image_index": index}


def _tree(request: PictureRequest, made: Made) -> dict[str, Any]:
    return {
        "created": int(time.time()),
        "data": [{"b64_json": data} for data in _encoded(made.outputs, request.form)],
        "output_format": request.form,
        "size": _size_of(made.outputs[0]),
        "usage": _usage(made),
    }


def _usage(made: Made) -> dict[str, Any]:
    read, drawn = sum(made.tokens.values()), made.new_tokens
    return {
        "input_tokens": read,
        "output_tokens": drawn,
        "total_tokens": read + drawn,
        "input_tokens_details": {"text_tokens": read, "image_tokens": 0},
    }


def _size_of(picture: str | np.ndarray) -> str:
    assert isinstance(picture, np.ndarray)  # noqa: S101 - pictures were ordered
    height, width = picture.shape[:2]
    return f"{width}x{height}"


def _encoded(pictures: Sequence[str | np.ndarray], form: str) -> list[str]:
    from trimodal.processors.encoding import picture_bytes

    arrays = [one for one in pictures if isinstance(one, np.ndarray)]
    return [base64.b64encode(picture_bytes(one, FORMATS[form])).decode() for one in arrays]
