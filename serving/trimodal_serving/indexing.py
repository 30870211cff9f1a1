"""/v1/indexes: indexes of vectors, and what is put into them.

reply = await create(call)
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimodal_serving.caller import current
from trimodal_serving.calls import Call
from trimodal_serving.embeddings import usage
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields
from trimodal_serving.filters import (
    BUILT_IN,
    TYPES,
    Among,
    Condition,
    Scalar,
    fault,
    is_plain,
    parse_filter,
)
from trimodal_serving.inputs import MAX_INPUTS, Input, Reading, check_numbers, parse_input
from trimodal_serving.replies import Reply, rendered
from trimodal_serving.store import Description, Index, Indexes, Item, check_name
from trimodal_serving.vectors import embed, label, take_dimensions

MAX_FIELDS = 32
MAX_ID = 256
"""Characters of an item's id."""
MAX_PAYLOAD = 16 * 1024
"""Bytes of an item's payload as JSON."""
LARGEST = 1e300
"""Of a number of a vector; JSON has whole numbers that are too large for a float."""
MODALITIES = ("image", "text", "audio", "fused")
RESERVED = (*BUILT_IN, "and", "or", "not")
"""What a field cannot be called, since filters have these words."""
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,62}")


async def stored(call: Call) -> Indexes:
    """The indexes of whoever asks.

    Raises:
        ServingError: it keeps none.
    """
    call.engine.check()  # before it is ready they may not be open
    if call.indexes is None:
        raise ServingError(
            404,
            "no_indexes",
            "this server keeps no indexes: it was started without --indexes DIR",
        )
    return await call.indexes.of(current())


async def index_of(call: Call, name: Any) -> Index:
    """An index whose vectors are from the model that is served.

    Raises:
        ServingError: there is none of this name, or it is of another model.
    """
    indexes = await stored(call)
    index = await indexes.get(name)
    index.check_model(call.engine.signature)
    return index


async def _named(call: Call) -> Index:
    """The index that the path names."""
    indexes = await stored(call)
    return await indexes.get(call.path["name"])


async def described(name: str, index: Index) -> dict[str, Any]:
    """An index as answers have it."""
    return {
        "object": "index",
        "name": name,
        "dimensions": index.dimensions,
        "fields": dict(index.fields),
        "items": await index.count(),
    }


async def listed(call: Call) -> Reply:
    """All indexes.

    Raises:
        ServingError: there are none in this server.
    """
    indexes = await stored(call)
    data = []
    for name in await indexes.names():
        try:
            data.append(await described(name, await indexes.get(name)))
        except ServingError as error:
            if error.status not in (404, 409):  # just deleted, or a table of another program
                raise
    return rendered({"object": "list", "data": data})


async def create(call: Call) -> Reply:
    """Make an index.

    Raises:
        ServingError: the request cannot be served, or there is one of this name.
    """
    indexes = await stored(call)
    known = call.engine.dimensions
    fields = await asyncio.to_thread(call.fields)
    fields.model(call.served, optional=True)
    name = check_name(fields.need("name"))
    length = take_dimensions(fields, known, "dimensions")
    kinds = _kinds(fields)
    fields.end()
    signature = call.engine.signature
    index = await indexes.create(name, Description(kinds, length, signature))
    return rendered(await described(name, index), 201)


async def describe(call: Call) -> Reply:
    """One index.

    Raises:
        ServingError: there is none of this name.
    """
    return rendered(await described(call.path["name"], await _named(call)))


async def drop(call: Call) -> Reply:
    """Delete an index with all its items.

    Raises:
        ServingError: there is none of this name.
    """
    name = call.path["name"]
    indexes = await stored(call)
    await indexes.drop(name)
    return rendered({"object": "index", "name": name, "deleted": True})


async def put(call: Call) -> Reply:
    """Embed items and put them into an index, in the place of those with their ids.

    Raises:
        ServingError: the request cannot be served; then nothing is put.
    """
    index = await index_of(call, call.path["name"])
    drafts = await asyncio.to_thread(_drafts, call, index)
    inputs = [draft.source for draft in drafts if isinstance(draft.source, Input)]
    tree: dict[str, Any] = {}
    vectors: Sequence[np.ndarray] = []
    if inputs:
        embedded = await embed(call.engine, inputs, index.dimensions)
        vectors, tree = list(embedded.vectors_NE), {"usage": usage(embedded)}
    rest = iter(vectors)
    items = [
        replace(draft.item, vector=next(rest)) if isinstance(draft.source, Input) else draft.item
        for draft in drafts
    ]
    await index.upsert(items)
    return rendered({"object": "list", "index": call.path["name"], "put": len(items)} | tree)


async def get(call: Call) -> Reply:
    """One item.

    Raises:
        ServingError: there is none of this id, or no such index.
    """
    index = await _named(call)
    name = call.path["id"]
    item = await index.item(name) if is_plain(name) else None
    if item is None:
        raise ServingError(404, "item_not_found", "the index has no item of this id")
    return rendered(shown_item(item, with_vector=True))


async def delete(call: Call) -> Reply:
    """Delete items by ids, or by a filter.

    Raises:
        ServingError: the request cannot be served.
    """
    index = await _named(call)
    fields = await asyncio.to_thread(call.fields)
    ids, tree = fields.take("ids"), fields.take("filter")
    fields.end()
    if (ids is None) == (tree is None):
        raise ServingError(400, "invalid_input", "the request must have one of `ids` and `filter`")
    number = await index.delete(_condition(ids, tree, index.fields))
    return rendered({"object": "list", "index": call.path["name"], "deleted": number})


def shown_item(item: Item, with_vector: bool) -> dict[str, Any]:
    """An item as answers have it."""
    tree: dict[str, Any] = {
        "object": "item",
        "id": item.id,
        "modality": item.modality,
        "metadata": dict(item.metadata),
    }
    if item.payload is not None:
        tree["payload"] = item.payload
    if with_vector:
        tree["vector"] = [float(f"{value:.9g}") for value in item.vector.tolist()]
    return tree


def _condition(ids: Any, tree: Any, fields: Mapping[str, str]) -> Condition:
    if ids is None:
        return parse_filter(tree, fields)
    if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_INPUTS:
        raise ServingError(
            400, "invalid_type", f"`ids` must be a list of 1 to {MAX_INPUTS} ids", param="ids"
        )
    return Among("id", tuple(_id(one, f"ids[{i}]") for i, one in enumerate(ids)))


def _kinds(fields: Fields) -> dict[str, str]:
    """The fields of an index and their types."""
    tree = fields.take("fields", {})
    if not isinstance(tree, dict) or len(tree) > MAX_FIELDS:
        problem = f"must be an object with at most {MAX_FIELDS} fields"
        raise fields.refusal("fields", "invalid_fields", problem)
    for name, kind in tree.items():
        if _FIELD.fullmatch(name) is None or name in RESERVED:
            raise fields.refusal(
                "fields",
                "invalid_fields",
                "must have names of 1 to 63 of a-z, 0-9 and _ that begin with a letter and are "
                f"none of {', '.join(RESERVED)}",
            )
        if not isinstance(kind, str) or kind not in TYPES:
            known = ", ".join(TYPES)
            raise fields.refusal(f"fields.{name}", "invalid_fields", f"must be one of {known}")
    return tree


@dataclass(frozen=True)
class _Draft:
    """An item that may have no vector yet."""

    item: Item
    source: Input | None


def _drafts(call: Call, index: Index) -> list[_Draft]:
    fields = call.fields()
    fields.model(call.served)
    trees = fields.need("items")
    fields.end()
    if not isinstance(trees, list) or not trees:
        raise fields.refusal("items", "invalid_type", "must be a list with something in it")
    if len(trees) > MAX_INPUTS:
        problem = f"has more than {MAX_INPUTS} items, which is the limit"
        raise ServingError(413, "too_many_inputs", f"`items` {problem}", param="items")
    drafts = [_draft(Fields(tree, f"items[{i}]"), index) for i, tree in enumerate(trees)]
    check_numbers([draft.source for draft in drafts if draft.source], "items")
    seen: set[str] = set()
    for i, draft in enumerate(drafts):
        if draft.item.id in seen:
            message = "two items have one id"
            raise ServingError(400, "duplicate_id", message, param=f"items[{i}].id")
        seen.add(draft.item.id)
    return drafts


def _draft(fields: Fields, index: Index) -> _Draft:
    name = _id(fields.need("id"), fields.where("id"))
    metadata = _metadata(fields.inner("metadata"), index.fields)
    payload = fields.take("payload")
    if payload is not None and len(json.dumps(payload)) > MAX_PAYLOAD:
        raise fields.refusal("payload", "payload_too_large", f"has more than {MAX_PAYLOAD} bytes")
    given, vector = fields.take("input"), fields.take("vector")
    if (given is None) == (vector is None):
        raise fields.refusal("input", "invalid_input", "must be there, or `vector` in its place")
    source = None
    if given is not None:
        source = parse_input(given, fields.where("input"), Reading())
        modality, numbers = label(source), np.empty(0, np.float32)
    else:
        modality = fields.choice("modality", MODALITIES, "fused") or "fused"
        numbers = unit_vector(vector, index.dimensions, fields.where("vector"))
    fields.end()
    return _Draft(Item(name, numbers, modality, metadata, payload), source)


def unit_vector(value: Any, dimensions: int, where: str) -> np.ndarray:
    """A vector that a client computed, brought to unit norm.

    Raises:
        ServingError: it is none, or has another length.
    """
    right = isinstance(value, list) and len(value) == dimensions
    if not right or not all(type(one) in (int, float) for one in value):
        problem = f"must be a list of {dimensions} numbers"
    elif not any(value):
        problem = "must have a number that is not 0"
    else:
        problem = "has numbers that are too large or too small to compute a norm of"
        if all(abs(one) < LARGEST for one in value):
            vector = np.array(value, np.float64)
            with np.errstate(over="ignore"):
                norm = float(np.linalg.norm(vector))
            if 0 < norm < float("inf"):
                return (vector / norm).astype(np.float32)
    raise ServingError(400, "invalid_vector", f"`{where}` {problem}", param=where)


def _id(value: Any, where: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID or not is_plain(value):
        message = f"`{where}` must be a string of 1 to {MAX_ID} characters, Unicode without NUL"
        raise ServingError(400, "invalid_id", message, param=where)
    return value


def _metadata(fields: Fields, kinds: Mapping[str, str]) -> dict[str, Scalar]:
    metadata: dict[str, Scalar] = {}
    for name, kind in kinds.items():
        value = fields.take(name)
        if value is None:
            continue
        if (problem := fault(value, kind)) is not None:
            raise fields.refusal(name, "invalid_metadata", problem)
        metadata[name] = float(value) if kind == "number" else value
    fields.end()
    return metadata
