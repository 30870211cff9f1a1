"""POST /v1/multimodalembeddings: Voyage's shape, in which an input is a list of parts.

reply = await answer(call)
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

from trimodal.batch import Modality
from trimodal_serving.calls import Call
from trimodal_serving.embeddings import ROLES
from trimodal_serving.fields import Fields
from trimodal_serving.inputs import Input, Reading, parse_inputs
from trimodal_serving.replies import Reply
from trimodal_serving.vectors import (
    Embedded,
    check_packs,
    embed,
    quantised,
    take_dimensions,
    written,
)

DTYPES = ("float", "int8", "uint8", "binary", "ubinary")


@dataclass(frozen=True)
class VoyageRequest:
    """A request whose form is right; the media in it have not been opened yet."""

    inputs: Sequence[Input]
    dimensions: int
    dtype: str
    base64: bool


async def answer(call: Call) -> Reply:
    """Embed inputs.

    Raises:
        ServingError: the request cannot be served.
    """
    dimensions = call.engine.dimensions
    request = await asyncio.to_thread(lambda: parse(call.fields(), call.served, dimensions))
    embedded = await embed(call.engine, request.inputs, request.dimensions)
    patch = call.engine.architecture.vision_input.patch_size
    pixels = embedded.sums[Modality.VISION] * patch**2
    return Reply(await asyncio.to_thread(render, request, call.served, embedded, pixels))


def parse(fields: Fields, served: str, dimensions: Sequence[int]) -> VoyageRequest:
    """Read a request.

    Raises:
        ServingError: a field that is wrong, missing, unknown or not supported.
    """
    fields.model(served)
    length = take_dimensions(fields, dimensions, "output_dimension")
    dtype = fields.choice("output_dtype", DTYPES, "float") or "float"
    check_packs(length, dtype, "output_dimension")
    # the client says one, the documents of the protocol the other
    names = ("encoding_format", "output_encoding")
    as_base64 = "base64" in [fields.choice(name, ("base64",)) for name in names]
    fields.choice("input_type", ROLES)
    cut = fields.take("truncation", True)
    if not isinstance(cut, bool):
        raise fields.refusal("truncation", "invalid_type", "must be true or false")
    items = fields.need("inputs")
    fields.end()
    if not isinstance(items, list):
        raise fields.refusal("inputs", "invalid_type", "must be a list")
    for i, item in enumerate(items):
        if not isinstance(item, dict) or "content" not in item:
            problem = "must be an object with `content`"
            raise fields.refusal(f"inputs[{i}]", "invalid_type", problem)
    inputs = parse_inputs(items, Reading(name="inputs", keep="start" if cut else None))
    return VoyageRequest(inputs, length, "float32" if dtype == "float" else dtype, as_base64)


def render(request: VoyageRequest, served: str, embedded: Embedded, pixels: int) -> bytes:
    """The body of the answer.

    Args:
        request: what is answered.
        served: the name of the model.
        embedded: its vectors.
        pixels: that the model saw.
    """
    rows = quantised(embedded.vectors_NE, request.dtype)
    data = ",".join(
        f'{{"object":"embedding","embedding":{written(row, request.base64)},"index":{i}}}'
        for i, row in enumerate(rows)
    )
    usage = {
        "text_tokens": embedded.sums[Modality.TEXT],
        "image_pixels": pixels,
        "video_pixels": 0,
        "audio_tokens": embedded.sums[Modality.SPEECH],
        "total_tokens": embedded.total,
    }
    tail = f'"model":{json.dumps(served)},"usage":{json.dumps(usage)}'
    return f'{{"object":"list","data":[{data}],{tail}}}'.encode()
