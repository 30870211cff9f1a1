"""GET /openapi.json: all operations in OpenAPI 3.1 (spec.openapis.org/oas/v3.1.1).

tree = document("demo")
"""

import re
from importlib.metadata import version
from typing import Any

from trimodal_serving.access import PUBLIC, scope_of
from trimodal_serving.bounds import BOUNDS
from trimodal_serving.errors import ServingError
from trimodal_serving.media_operations import GENERATION, SEARCH
from trimodal_serving.operations import (
    ALIASES,
    EMBEDDINGS,
    FORM,
    HEALTH,
    JSON,
    KSERVE,
    NAME,
    TOKENS,
    Operation,
)

KEY = "key"
"""What the document calls the way in which callers say who they are."""
OPERATIONS = (*HEALTH, *EMBEDDINGS, *GENERATION, *TOKENS, *SEARCH, *KSERVE, *ALIASES)


def document(served: str) -> dict[str, Any]:
    """The document.

    Args:
        served: what clients call the model.
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    tree = {
        "openapi": "3.1.0",
        "info": {
            "title": "trimodal",
            "version": version("trimodal"),
            "description": "One model of images, text and speech.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"responses": {"Error": _error()}, "securitySchemes": {KEY: _key()}},
    }
    return named(tree, served)


def named(tree: Any, served: str) -> Any:
    """A copy of an example with the name of the model that is served."""
    if isinstance(tree, dict):
        return {key: named(value, served) for key, value in tree.items()}
    if isinstance(tree, list):
        return [named(value, served) for value in tree]
    return served if tree == NAME else tree


def _described(operation: Operation) -> dict[str, Any]:
    words = re.findall(r"[a-z0-9]+", operation.path)
    tree: dict[str, Any] = {
        "operationId": "_".join((operation.method.lower(), *words)),
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {
            str(operation.status): _answered(operation),
            "default": {"$ref": "#/components/responses/Error"},
        },
    }
    open_to_all = operation.path == PUBLIC
    tree["security"] = [] if open_to_all else [{KEY: sorted(scope_of(operation.path))}]
    names = re.findall(r"\{([a-z]+)\}", operation.path)
    if names:
        tree["parameters"] = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                "example": operation.path_example[name],
            }
            for name in names
        ]
    if operation.fields:
        tree["requestBody"] = {"required": True, "content": {operation.kind: _body(operation)}}
    return tree


def _answered(operation: Operation) -> dict[str, Any]:
    if operation.answer_kind != JSON:
        content: dict[str, Any] = {operation.answer_kind: {}}
    else:
        schema = schema_of(operation.answer, operation.optional)
        content = {JSON: {"schema": schema, "example": operation.answer}}
    content |= {kind: {} for kind in operation.also}
    return {"description": "The answer", "content": content}


def _body(operation: Operation) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required = []
    bounds = BOUNDS.get(operation.path, {})
    for name, text in operation.fields.items():
        kind, _, what = text.partition(": ")
        if kind.endswith("!"):
            required.append(name)
        kind = kind.rstrip("!")
        schema: dict[str, Any] = {"type": kind}
        if kind == "any":
            schema = {}
        elif kind == "file":
            schema = {"type": "string", "contentMediaType": "application/octet-stream"}
        properties[name] = {**schema, "description": what, **bounds.get(name, {})}
    example = dict(operation.example or {})
    if operation.kind == FORM:
        example["file"] = "(the bytes of a file)"
    schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return {"schema": schema, "example": example}


def schema_of(example: Any, optional: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The form of an example: kinds, and the fields that all answers have."""
    if isinstance(example, dict):
        properties = {key: schema_of(value, optional) for key, value in example.items()}
        required = [key for key in example if key not in optional]
        return {"type": "object", "properties": properties, "required": required}
    if isinstance(example, list):
        return {"type": "array"} | ({"items": schema_of(example[0], optional)} if example else {})
    kinds = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"))
    return {"type": next(name for kind, name in kinds if isinstance(example, kind))}


def _key() -> dict[str, Any]:
    return {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of `trimodal keys` with the scopes that stand beside an operation, "
        "also as the header `api-key` or `x-api-key`; a server that was started without keys asks "
        "for none",
    }


def _error() -> dict[str, Any]:
    example = ServingError(400, "empty_input", "`input` is empty", param="input").envelope()
    strings = {key: {"type": "string"} for key in ("message", "type", "code")}
    error = {
        "type": "object",
        "properties": strings | {"param": {"type": ["string", "null"]}},
        "required": ["message", "type", "param", "code"],
    }
    schema = {"type": "object", "properties": {"error": error}, "required": ["error"]}
    return {
        "description": "Anything that went wrong, see docs/serving.md for the codes",
        "content": {JSON: {"schema": schema, "example": example}},
    }
