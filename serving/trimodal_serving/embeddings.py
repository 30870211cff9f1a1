"""POST /v1/embeddings: OpenAI's shape, and what Voyage's client sends to the same path.

reply = await answer(call)
"""

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

from trimodal_serving.calls import Call
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import SMALL_BYTES, Fields
from trimodal_serving.forms import parse_form
from trimodal_serving.inputs import (
    NAMES,
    Input,
    Reading,
    check_numbers,
    parse_input,
    parse_inputs,
)
from trimodal_serving.media import RawMedium, recognised
from trimodal_serving.replies import Reply
from trimodal_serving.vectors import (
    DTYPES,
    LABELS,
    Embedded,
    check_packs,
    embed,
    label,
    quantised,
    take_dimensions,
    written,
)

BYTES = "application/octet-stream"
ROLES = ("query", "document")
"""What an input may be for; the model embeds both alike."""
SMALL_NUMBERS = 1 << 12
"""Of an answer, likewise."""


@dataclass(frozen=True)
class EmbeddingRequest:
    """A request whose form is right; the media in it have not been opened yet."""

    inputs: list[Input]
    dimensions: int
    dtype: str
    base64: bool


async def answer(call: Call) -> Reply:
    """Embed inputs.

    Raises:
        ServingError: the request cannot be served.
    """
    dimensions = call.engine.dimensions
    # parsing and rendering of large requests would hold up every other one
    if len(call.body) <= SMALL_BYTES:
        request = _parsed(call, dimensions)
    else:
        request = await asyncio.to_thread(_parsed, call, dimensions)
    embedded = await embed(call.engine, request.inputs, request.dimensions)
    if BYTES in call.headers.get("accept", ""):
        return _raw(request, embedded)
    if embedded.vectors_NE.size <= SMALL_NUMBERS:
        return Reply(render(request, call.served, embedded))
    return Reply(await asyncio.to_thread(render, request, call.served, embedded))


def _parsed(call: Call, dimensions: tuple[int, ...]) -> EmbeddingRequest:
    kind = call.headers.get("content-type", "")
    if kind.lower().startswith("multipart/"):
        return _of_form(kind, call.body, call.served, dimensions)
    return parse(call.fields(), call.served, dimensions)


def parse(fields: Fields, served: str, dimensions: tuple[int, ...]) -> EmbeddingRequest:
    """Read a request.

    Args:
        fields: of its body.
        served: the only model name that is answered.
        dimensions: the lengths that an embedding may have, in rising order.

    Raises:
        ServingError: a field that is wrong, missing or unknown, or another model.
    """
    request = _options(fields, served, dimensions)
    name = fields.choice("modality", NAMES)
    cut = fields.flag("truncate") | fields.flag("truncation")
    reading = Reading(
        NAMES[name] if name else None,
        keep="start" if cut else None,
        token_ids=fields.flag("token_ids"),
    )
    messages = fields.take("messages")
    if messages is None:
        inputs = parse_inputs(fields.need("input"), reading)
    else:
        fields.neutral("`messages` stands in its place", input=())
        inputs = parse_inputs(
            _conversations(messages), replace(reading, name="messages", chat=True)
        )
    fields.choice("input_type", ROLES)
    fields.pass_over("user")
    fields.end()
    return replace(request, inputs=inputs)


def _options(fields: Fields, served: str, dimensions: tuple[int, ...]) -> EmbeddingRequest:
    """Everything but the inputs; Voyage has other words for OpenAI's."""
    fields.model(served)
    length = take_dimensions(fields, dimensions, "dimensions", "output_dimension")
    dtype = fields.choice("embedding_dtype", DTYPES)
    voyage = fields.choice("output_dtype", ("float", *DTYPES[1:]), "float") or "float"
    dtype = dtype or {"float": "float32"}.get(voyage, voyage)
    check_packs(length, dtype, "dimensions")
    encoding = fields.choice("encoding_format", ("float", "base64"), "float")
    fields.neutral("the vectors of this model have unit norm", normalize=(True,))
    return EmbeddingRequest([], length, dtype, encoding == "base64")


def _conversations(messages: Any) -> Any:
    """One conversation as the only item of a list, as several are."""
    one = isinstance(messages, list) and bool(messages) and isinstance(messages[0], dict)
    return [messages] if one else messages


def _of_form(kind: str, body: bytes, served: str, dimensions: tuple[int, ...]) -> EmbeddingRequest:
    """Files of pictures and speech, and texts, as curl sends them."""
    form = parse_form(kind, body, repeated=("file", "text"))
    fields = Fields({key: _number(key, text) for key, text in form.fields.items()})
    request = _options(fields, served, dimensions)
    fields.pass_over("user")
    fields.end()
    if form.files:
        raise ServingError(400, "unknown_field", "the form has a file that is not called `file`")
    if not form.repeated:
        raise fields.refusal("file", "missing_field", "is missing, and so is `text`")
    inputs = [_part(f"{name}[{i}]", data) for i, (name, data) in enumerate(form.repeated)]
    check_numbers(inputs, "file")
    return replace(request, inputs=inputs)


def _part(where: str, data: str | bytes) -> Input:
    """A text, or a file that is recognised by how it begins."""
    if isinstance(data, str):
        return parse_input(data, where, Reading())
    try:
        modality = recognised(data)
        return Input(where, {modality: RawMedium(modality, data)})
    except ServingError as error:
        raise error.at(where) from None


def _number(key: str, text: str) -> Any:
    """Forms hold strings."""
    return int(text) if key in ("dimensions", "output_dimension") and text.isdecimal() else text


def render(request: EmbeddingRequest, served: str, embedded: Embedded) -> bytes:
    """The body of the answer."""
    rows = quantised(embedded.vectors_NE, request.dtype)
    data = ",".join(
        f'{{"object":"embedding","index":{i},"embedding":{written(row, request.base64)},'
        f'"modality":"{label(item)}"}}'
        for i, (row, item) in enumerate(zip(rows, request.inputs, strict=True))
    )
    tail = f'"model":{json.dumps(served)},"usage":{json.dumps(usage(embedded))}'
    return f'{{"object":"list","data":[{data}],{tail}}}'.encode()


def usage(embedded: Embedded) -> dict[str, Any]:
    """Tokens of the model, over all and by modality."""
    return {
        "prompt_tokens": embedded.total,
        "total_tokens": embedded.total,
        "prompt_tokens_details": {f"{LABELS[m]}_tokens": n for m, n in embedded.sums.items()},
    }


def _raw(request: EmbeddingRequest, embedded: Embedded) -> Reply:
    """Vectors as bytes, row by row."""
    rows = quantised(embedded.vectors_NE, request.dtype)
    headers = {
        "x-embedding-shape": ",".join(map(str, rows.shape)),
        "x-embedding-dtype": request.dtype,
        "x-prompt-tokens": str(embedded.total),
    }
    return Reply(rows.tobytes(), BYTES, headers)
