"""The document is well-formed, as it was, and true: its examples are answered as it says.

UPDATE_SNAPSHOTS=1 pytest tests/serving/test_openapi.py
"""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate

from trimodal_serving.access import scope_of
from trimodal_serving.openapi import OPERATIONS, document, schema_of

SNAPSHOT = Path(__file__).with_name("openapi.json")


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    return document("tiny")


def test_it_is_openapi(tree: dict[str, Any]) -> None:
    validate(tree)
    names = [one["operationId"] for path in tree["paths"].values() for one in path.values()]
    assert len(set(names)) == len(names) == len(OPERATIONS)


def test_it_is_as_it_was(tree: dict[str, Any]) -> None:
    shown = {**tree, "info": {**tree["info"], "version": "0"}}
    text = json.dumps(shown, indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert SNAPSHOT.read_text(encoding="utf-8") == text, "run with UPDATE_SNAPSHOTS=1 and look"


def test_it_is_served(base_url: str, tree: dict[str, Any]) -> None:
    assert httpx.get(f"{base_url}/openapi.json").json() == tree


def test_every_operation_has_examples(tree: dict[str, Any]) -> None:
    for path in tree["paths"].values():
        for operation in path.values():
            for body in operation.get("requestBody", {}).get("content", {}).values():
                assert body["example"]
                required = body["schema"].get("required", [])
                assert set(required) <= set(body["example"]) <= set(body["schema"]["properties"])
            for parameter in operation.get("parameters", []):
                assert parameter["example"]
            (status,) = set(operation["responses"]) - {"default"}
            for kind, body in operation["responses"][status]["content"].items():
                assert kind != "application/json" or body["example"]


def test_every_operation_says_what_a_key_needs(tree: dict[str, Any]) -> None:
    for path, operations in tree["paths"].items():
        for operation in operations.values():
            needed = [] if path == "/livez" else [{"key": sorted(scope_of(path))}]
            assert operation["security"] == needed
    assert tree["paths"]["/v1/embeddings"]["post"]["security"] == [{"key": ["embed"]}]
    scheme = tree["components"]["securitySchemes"]["key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_every_number_of_a_body_has_bounds(tree: dict[str, Any]) -> None:
    free = {"dimensions", "output_dimension", "max_tokens"}  # of the model, or not supported
    for path in tree["paths"].values():
        for operation in path.values():
            for body in operation.get("requestBody", {}).get("content", {}).values():
                for name, one in body["schema"]["properties"].items():
                    if one.get("type") in ("integer", "number") and name not in free:
                        assert one["minimum"] <= one["maximum"], name


def test_errors_are_as_they_are_described(base_url: str, tree: dict[str, Any]) -> None:
    error = tree["components"]["responses"]["Error"]["content"]["application/json"]
    jsonschema.validate(error["example"], error["schema"])
    jsonschema.validate(httpx.get(f"{base_url}/nowhere").json(), error["schema"])


def test_the_form_of_an_example() -> None:
    schema = schema_of({"a": [1], "b": {"c": True}, "d": 0.5, "e": []})
    jsonschema.validate({"a": [], "b": {"c": False, "x": 1}, "d": 2, "e": [None]}, schema)
    for wrong in ({"a": ["x"], "b": {"c": True}, "d": 1, "e": []}, {"a": [1]}, []):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
