"""POST /v1/search: the items of an index that are nearest to an input of any kind.

reply = await answer(call)
"""

import asyncio
from typing import Any

import numpy as np

from trimodal_serving.calls import Call
from trimodal_serving.embeddings import usage
from trimodal_serving.errors import ServingError
from trimodal_serving.filters import parse_filter
from trimodal_serving.indexing import index_of, shown_item, unit_vector
from trimodal_serving.inputs import Input, Reading, parse_input
from trimodal_serving.replies import Reply, rendered
from trimodal_serving.store import Index
from trimodal_serving.vectors import embed

MOST = 1000
"""Items in one answer."""


async def answer(call: Call) -> Reply:
    """Find the nearest items.

    Raises:
        ServingError: the request cannot be served.
    """
    call.engine.check()
    fields = await asyncio.to_thread(call.fields)
    fields.model(call.served)
    name = fields.need("index")
    index = await index_of(call, name)
    most = fields.whole("k", 1, MOST) or 10
    with_vectors = fields.flag("with_vectors")
    tree = fields.take("filter")
    condition = None if tree is None else parse_filter(tree, index.fields)
    sought = _sought(fields.take("query"), fields.take("vector"), index)
    fields.end()
    vector, spent = await _vector(call, sought, index)
    found = await index.search(vector, most, condition)
    data = [
        {"index": i, "score": float(f"{one.score:.9g}")} | shown_item(one.item, with_vectors)
        for i, one in enumerate(found)
    ]
    return rendered({"object": "list", "model": call.served, "index": name, "data": data} | spent)


def _sought(query: Any, vector: Any, index: Index) -> Input | np.ndarray:
    if (query is None) == (vector is None):
        raise ServingError(
            400, "invalid_input", "the request must have one of `query` and `vector`"
        )
    if query is None:
        return unit_vector(vector, index.dimensions, "vector")
    return parse_input(query, "query", Reading())


async def _vector(
    call: Call, sought: Input | np.ndarray, index: Index
) -> tuple[np.ndarray, dict[str, Any]]:
    if isinstance(sought, np.ndarray):
        return sought, {}
    embedded = await embed(call.engine, [sought], index.dimensions)
    return embedded.vectors_NE[0], {"usage": usage(embedded)}
