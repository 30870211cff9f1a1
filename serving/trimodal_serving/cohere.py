"""POST /v2/embed: Cohere's shape.

reply = await answer(call)
"""

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimodal.batch import Modality
from trimodal_serving.calls import Call
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields
from trimodal_serving.inputs import Input, Keep, Reading, parse_inputs
from trimodal_serving.replies import Reply
from trimodal_serving.vectors import (
    Embedded,
    check_packs,
    embed,
    quantised,
    take_dimensions,
    written_rows,
)

TYPES = ("float", "int8", "uint8", "binary", "ubinary", "base64")
PURPOSES = ("search_document", "search_query", "classification", "clustering", "image")
KEEPS: dict[str, Keep | None] = {"NONE": None, "END": "start", "START": "end"}
"""What remains of a text of which Cohere's word says what is cut off."""


@dataclass(frozen=True)
class CohereRequest:
    """A request whose form is right; the media in it have not been opened yet."""

    inputs: Sequence[Input]
    texts: Sequence[str] | None
    """What the answer repeats."""
    dimensions: int
    types: Sequence[str]


async def answer(call: Call) -> Reply:
    """Embed inputs.

    Raises:
        ServingError: the request cannot be served.
    """
    dimensions = call.engine.dimensions
    request = await asyncio.to_thread(lambda: parse(call.fields(), call.served, dimensions))
    embedded = await embed(call.engine, request.inputs, request.dimensions)
    return Reply(await asyncio.to_thread(render, request, embedded))


def parse(fields: Fields, served: str, dimensions: Sequence[int]) -> CohereRequest:
    """Read a request.

    Raises:
        ServingError: a field that is wrong, missing, unknown or not supported.
    """
    fields.model(served)
    length = take_dimensions(fields, dimensions, "output_dimension")
    types = _types(fields, length)
    fields.choice("input_type", PURPOSES)
    keep = KEEPS[fields.choice("truncate", KEEPS, "END") or "END"]
    fields.neutral("a text has as many tokens as the model reads", max_tokens=())
    fields.neutral("requests have one priority", priority=(0,))
    given = {key: fields.take(key) for key in ("texts", "images", "inputs")}
    fields.end()
    there = [key for key, value in given.items() if value is not None]
    if len(there) != 1:
        raise ServingError(
            400, "invalid_input", "the request must have one of `texts`, `images` and `inputs`"
        )
    (name,) = there
    value = given[name]
    if not isinstance(value, list):
        raise fields.refusal(name, "invalid_type", "must be a list")
    kind = str if name != "inputs" else dict
    for i, item in enumerate(value):
        if not isinstance(item, kind):
            what = "a string" if kind is str else "an object"
            raise fields.refusal(f"{name}[{i}]", "invalid_type", f"must be {what}")
    modality = Modality.VISION if name == "images" else None
    inputs = parse_inputs(value, Reading(modality, name, keep))
    return CohereRequest(inputs, value if name == "texts" else None, length, types)


def _types(fields: Fields, dimensions: int) -> list[str]:
    types = fields.take("embedding_types", ["float"])
    if not isinstance(types, list) or not types or any(one not in TYPES for one in types):
        problem = f"must be a list of {', '.join(TYPES)}"
        raise fields.refusal("embedding_types", "invalid_embedding_types", problem)
    for one in types:
        check_packs(dimensions, one, "output_dimension")
    return list(dict.fromkeys(types))


def render(request: CohereRequest, embedded: Embedded) -> bytes:
    """The body of the answer."""
    kinds = ",".join(f'"{kind}":{_rows(kind, embedded)}' for kind in request.types)
    sums = embedded.sums
    billed = {"input_tokens": sums[Modality.TEXT], "image_tokens": sums[Modality.VISION]}
    if sums[Modality.SPEECH]:
        billed["audio_tokens"] = sums[Modality.SPEECH]
    tail: dict[str, Any] = {
        "id": f"embd-{uuid.uuid4().hex}",
        "meta": {"api_version": {"version": "2"}, "billed_units": billed},
        "response_type": "embeddings_by_type",
    }
    if request.texts is not None:
        tail["texts"] = request.texts
    return f'{{"embeddings":{{{kinds}}},{json.dumps(tail)[1:]}'.encode()


def _rows(kind: str, embedded: Embedded) -> str:
    dtype = "float32" if kind in ("float", "base64") else kind
    return written_rows(quantised(embedded.vectors_NE, dtype), kind == "base64")
