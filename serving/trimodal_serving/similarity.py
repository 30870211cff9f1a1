"""POST /v1/similarity: how alike inputs of any kinds are.

reply = await answer(call)
"""

import asyncio
import json

from trimodal_serving.calls import Call
from trimodal_serving.embeddings import usage
from trimodal_serving.errors import ServingError
from trimodal_serving.inputs import Input, Reading, check_numbers, parse_inputs
from trimodal_serving.replies import Reply
from trimodal_serving.vectors import embed, take_dimensions, written_rows

MOST_PAIRS = 250_000
"""Of similarities in one answer."""


async def answer(call: Call) -> Reply:
    """Compare all queries with all documents.

    Raises:
        ServingError: the request cannot be served.
    """
    known = call.engine.dimensions
    queries, documents, length = await asyncio.to_thread(_parsed, call, known)
    embedded = await embed(call.engine, [*queries, *documents], length)
    left, right = embedded.vectors_NE[: len(queries)], embedded.vectors_NE[len(queries) :]
    rows = await asyncio.to_thread(lambda: written_rows(left @ right.T))
    tail = f'"model":{json.dumps(call.served)},"usage":{json.dumps(usage(embedded))}'
    return Reply(f'{{"object":"similarity","similarities":{rows},{tail}}}'.encode())


def _parsed(call: Call, known: tuple[int, ...]) -> tuple[list[Input], list[Input], int]:
    fields = call.fields()
    fields.model(call.served)
    length = take_dimensions(fields, known, "dimensions")
    keep = "start" if fields.flag("truncate") else None
    sides = [
        parse_inputs(fields.need(name), Reading(name=name, keep=keep))
        for name in ("queries", "documents")
    ]
    fields.pass_over("user")
    fields.end()
    queries, documents = sides
    check_numbers([*queries, *documents], "documents")
    if len(queries) * len(documents) > MOST_PAIRS:
        message = f"a request may compare {MOST_PAIRS} pairs at most"
        raise ServingError(413, "too_many_inputs", message, param="documents")
    return queries, documents, length
