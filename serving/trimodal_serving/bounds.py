"""What the fields of bodies may be at least and at most, in the words of JSON Schema.

BOUNDS["/v1/search"]["k"]["maximum"]
"""

from collections.abc import Mapping
from typing import Any

from trimodal.config import SCHEDULES
from trimodal_serving.indexing import MAX_FIELDS
from trimodal_serving.inputs import MAX_INPUTS, MAX_MEDIA
from trimodal_serving.kserve import TENSORS
from trimodal_serving.orders import (
    EXTENSION,
    MAX_EARLINESS,
    MAX_GUIDANCE,
    MAX_PARTIAL,
    MAX_REDRAWS,
    MAX_SEED,
    MAX_STEPS,
    MAX_TEMPERATURE,
)
from trimodal_serving.pictures import MAX_PICTURES
from trimodal_serving.searching import MOST
from trimodal_serving.speech import MAX_CHARACTERS

Bounds = Mapping[str, Mapping[str, Any]]

_TEXT = {"minLength": 1}
_SOME = {"minItems": 1}
_LIST = {"minItems": 1, "maxItems": MAX_INPUTS}
_FILTER = {"minProperties": 1}
_NAME = {"minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9][a-z0-9_-]*$"}
_ANY = {**_TEXT, **_LIST, **_FILTER}
"""An input in any form: a keyword holds for values of its own type alone."""
_OR_IDS = {**_TEXT, **_SOME, **_FILTER, "anyOf": [_LIST, {"items": {"type": "integer"}}]}
"""The same where a list of numbers may be one text, in the pieces of the model."""
_SEED = {"seed": {"minimum": 0, "maximum": MAX_SEED - 1}}
_TEMPERATURE = {"temperature": {"minimum": 0, "maximum": MAX_TEMPERATURE}}
_SAMPLING = {**_TEMPERATURE, "top_p": {"minimum": 1e-6, "maximum": 1}}
_TOKENS = {"minimum": 1, "maximum": 2**31}


def _number(low: float, high: float) -> dict[str, Any]:
    return {"type": "number", "minimum": low, "maximum": high}


def _whole(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


_DECODING = {
    "guidance": _number(0, MAX_GUIDANCE),
    "steps": _whole(1, MAX_STEPS),
    "schedule": {"type": "string", "enum": list(SCHEDULES)},
    "choice_temperature": _number(0, MAX_GUIDANCE),
}
_DRAWN = _DECODING | {
    "temperature": _number(0, MAX_TEMPERATURE),
    "top_p": _number(1e-6, 1),
}
_SPOKEN = _DRAWN | {
    "earliness": _number(0, MAX_EARLINESS),
    "partial_sounds": _whole(0, MAX_PARTIAL),
}

_EMBEDDINGS = {"input": _OR_IDS, "messages": _SOME}

BOUNDS: Mapping[str, Bounds] = {
    "/v1/embeddings": _EMBEDDINGS,
    "/embeddings": _EMBEDDINGS,
    "/v1/multimodalembeddings": {"inputs": _LIST},
    "/v2/embed": {
        "texts": _LIST,
        "images": {**_SOME, "maxItems": MAX_MEDIA},
        "inputs": _LIST,
        "embedding_types": _SOME,
        "priority": {"minimum": 0, "maximum": 0},
    },
    "/embed": {"inputs": _ANY},
    "/v1/similarity": {"queries": _ANY, "documents": _ANY},
    "/v1/tokens/encode": {"data": _TEXT},
    "/v1/tokens/decode": {"codes": _SOME},
    "/v1/chat/completions": {
        "messages": {**_SOME, "maxItems": 1},
        "max_tokens": _TOKENS,
        "max_completion_tokens": _TOKENS,
        **_SAMPLING,
        **_SEED,
        EXTENSION: {"properties": _DECODING | {"redraws": _whole(0, MAX_REDRAWS)}},
    },
    "/v1/audio/transcriptions": {**_TEMPERATURE, **_SEED},
    "/v1/audio/translations": {**_TEMPERATURE, **_SEED},
    "/v1/audio/speech": {
        "input": {**_TEXT, "maxLength": MAX_CHARACTERS},
        "speed": {"minimum": 1, "maximum": 1},
        "instructions": {"maxLength": 0},
        **_SEED,
        EXTENSION: {"properties": _SPOKEN},
    },
    "/v1/images/generations": {
        "prompt": _TEXT,
        "n": {"minimum": 1, "maximum": MAX_PICTURES},
        "partial_images": {"minimum": 0, "maximum": MAX_PARTIAL},
        **_SEED,
        EXTENSION: {"properties": _DRAWN},
    },
    "/v1/indexes": {"name": _NAME, "fields": {"maxProperties": MAX_FIELDS}},
    "/v1/indexes/{name}/items": {"items": _LIST},
    "/v1/indexes/{name}/items/delete": {"ids": _LIST, "filter": _FILTER},
    "/v1/search": {
        "index": _NAME,
        "query": {**_TEXT, **_FILTER},
        "vector": _SOME,
        "k": {"minimum": 1, "maximum": MOST},
        "filter": _FILTER,
    },
    "/v2/models/{model}/infer": {
        "inputs": {**_SOME, "maxItems": len(TENSORS)},
        "outputs": {"maxItems": 1},
    },
}
"""By path and field. What depends on the model, such as the tokens of a text, is not there."""
