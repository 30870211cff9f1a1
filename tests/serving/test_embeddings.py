import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest

from trimodal.batch import Modality
from trimodal.models import TrimodalModel, cut
from trimodal_serving.embeddings import EmbeddingRequest, render
from trimodal_serving.embeddings import parse as parse_fields
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields, parse_json
from trimodal_serving.inputs import Input
from trimodal_serving.vectors import Embedded, quantised

GOOD: dict[str, Any] = {"model": "tiny", "input": "a"}


def parse(body: bytes | dict[str, Any]) -> EmbeddingRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_fields(Fields(parse_json(raw)), "tiny", (8, 16))


def test_defaults() -> None:
    request = parse(GOOD)
    assert request.inputs == [Input("input", {Modality.TEXT: "a"})]
    assert request.dimensions == 16
    assert not request.base64


def test_every_field() -> None:
    request = parse(
        {
            "model": "tiny",
            "input": ["AAAA"],
            "modality": "speech",
            "encoding_format": "base64",
            "dimensions": 8,
            "user": "someone",
        }
    )
    assert list(request.inputs[0].media) == [Modality.SPEECH]
    assert (request.dimensions, request.base64) == (8, True)


def test_null_is_absent() -> None:
    assert parse(
        {**GOOD, "dimensions": None, "encoding_format": None, "modality": None, "user": None}
    )


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"model": "other"}, 404, "model_not_found", "model"),
        ({"model": 7}, 404, "model_not_found", "model"),
        ({"model": None}, 400, "missing_field", "model"),
        ({"input": None}, 400, "missing_field", "input"),
        ({"colour": 1}, 400, "unknown_field", "colour"),
        ({"<b>": 1}, 400, "unknown_field", None),
        ({"\ud800": 1}, 400, "unknown_field", None),
        ({"dimensions": 9}, 400, "invalid_dimensions", "dimensions"),
        ({"dimensions": 0}, 400, "invalid_dimensions", "dimensions"),
        ({"dimensions": True}, 400, "invalid_dimensions", "dimensions"),
        ({"dimensions": 8.0}, 400, "invalid_dimensions", "dimensions"),
        ({"dimensions": "8"}, 400, "invalid_dimensions", "dimensions"),
        ({"encoding_format": "int8"}, 400, "invalid_encoding_format", "encoding_format"),
        ({"embedding_dtype": "int4"}, 400, "invalid_embedding_dtype", "embedding_dtype"),
        ({"output_dimension": 9}, 400, "invalid_dimensions", "output_dimension"),
        ({"output_dtype": "float32"}, 400, "invalid_output_dtype", "output_dtype"),
        ({"normalize": False}, 400, "unsupported_field", "normalize"),
        ({"truncate": "END"}, 400, "invalid_type", "truncate"),
        ({"input_type": "passage"}, 400, "invalid_input_type", "input_type"),
        ({"messages": [{"role": "user", "content": "a"}]}, 400, "unsupported_field", "input"),
        ({"encoding_format": ["float"]}, 400, "invalid_encoding_format", "encoding_format"),
        ({"modality": "video"}, 400, "invalid_modality", "modality"),
    ],
)
def test_wrong_fields(change: dict[str, Any], status: int, code: str, param: str | None) -> None:
    with pytest.raises(ServingError) as caught:
        parse({**GOOD, **change})
    assert (caught.value.status, caught.value.code, caught.value.param) == (status, code, param)


def test_dimensions_are_listed() -> None:
    with pytest.raises(ServingError, match="one of 8, 16"):
        parse({**GOOD, "dimensions": 9})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"model": "tiny", "input": NaN}',
        b'{"model": "tiny", "input": [-Infinity]}',
        b'{"model": "tiny", "input": "\xff"}',
        json.dumps(GOOD).encode("utf-16"),
        b"[" * 100_000,
        b'{"model": "tiny", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000,
        b'{"model": "tiny", "input": ' + b"9" * 5000 + b"}",
        b"[" + b"[]," * 600_000 + b"[]]",
    ],
)
def test_bad_json(body: bytes) -> None:
    with pytest.raises(ServingError) as caught:
        parse(body)
    assert (caught.value.status, caught.value.code) == (400, "bad_json")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"model": "tiny", "input": "a", "input": "b"}', "`input`"),
        (b'{"model": "tiny", "input": "a", "in\\u0070ut": "a"}', "`input`"),
        (b'{"model": "tiny", "input": [{"text": "a"}, {"text": "a", "text": "b"}]}', "`text`"),
        (b'{"a": 1, "b": 1, "c": 1, "b": 1, "a": 1}', "`b`"),
        (b'{"<b>": 1, "<b>": 1}', "an unusual name"),
    ],
)
def test_a_field_that_is_there_twice_is_named(body: bytes, named: str) -> None:
    with pytest.raises(ServingError, match=f"the request has a field .*{named} twice") as caught:
        parse(body)
    assert (caught.value.status, caught.value.code) == (400, "duplicate_field")


@pytest.mark.parametrize("body", [b"[]", b"7", b'"a"', b"null"])
def test_json_that_is_no_object(body: bytes) -> None:
    with pytest.raises(ServingError) as caught:
        parse(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_type")


def answer(encoding: str, vectors: np.ndarray) -> dict[str, Any]:
    request = parse(
        {
            **GOOD,
            "input": [{"text": "a"}, {"text": "b", "image": "AAAA"}],
            "encoding_format": encoding,
        }
    )
    tokens = [{Modality.TEXT: 3}, {Modality.TEXT: 2, Modality.VISION: 4}]
    return json.loads(render(request, "tiny", Embedded(request.inputs, vectors, tokens)))


def test_answer() -> None:
    vectors = np.array([[0.1, -1e-30], [1 / 3, 1.0]], dtype=np.float32)
    tree = answer("float", vectors)
    assert [item["modality"] for item in tree["data"]] == ["text", "fused"]
    assert [item["index"] for item in tree["data"]] == [0, 1]
    assert {item["object"] for item in tree["data"]} == {"embedding"}
    assert tree["object"] == "list"
    assert tree["model"] == "tiny"
    assert tree["usage"] == {
        "prompt_tokens": 9,
        "total_tokens": 9,
        "prompt_tokens_details": {"text_tokens": 5, "image_tokens": 4, "audio_tokens": 0},
    }


def test_both_encodings_give_back_every_bit() -> None:
    vectors = np.random.default_rng(0).standard_normal((2, 512)).astype(np.float32)
    written = [item["embedding"] for item in answer("float", vectors)["data"]]
    assert (np.array(written, dtype=np.float32) == vectors).all()
    packed = [item["embedding"] for item in answer("base64", vectors)["data"]]
    read = [np.frombuffer(base64.b64decode(text), dtype="<f4") for text in packed]
    assert (np.array(read) == vectors).all()


def form(base_url: str, *parts: Any) -> httpx.Response:
    return httpx.post(f"{base_url}/v1/embeddings", files=[("model", (None, "tiny")), *parts])


def test_a_form_is_embedded_in_the_order_of_its_parts(
    base_url: str, model: TrimodalModel, png: bytes, wav: bytes
) -> None:
    parts = [("file", ("a", wav)), ("text", (None, "red")), ("file", ("b", png))]
    data = form(base_url, *parts, ("dimensions", (None, "8"))).json()["data"]
    assert [item["modality"] for item in data] == ["audio", "text", "image"]
    expected = model.embed(
        speech=[wav, None, None], text=[None, "red", None], image=[None, None, png]
    )["fused"]
    found = np.array([item["embedding"] for item in data])
    assert np.abs(found - cut(expected, 8)).max() < 1e-6


@pytest.mark.parametrize(
    ("part", "code", "param"),
    [
        (("user", (None, "x")), "missing_field", "file"),
        (("file", ("a.txt", b"nothing")), "unsupported_format", "file[0]"),
        (("file", ("a.png", b"")), "unsupported_format", "file[0]"),
        (("file", ("a.png", b"\x89PNG cut")), "invalid_image", "file[0]"),
        (("text", (None, " ")), "empty_input", "text[0]"),
        (("image", ("a.png", b"x")), "unknown_field", None),
        (("colour", (None, "red")), "unknown_field", "colour"),
        (("dimensions", (None, "x")), "invalid_dimensions", "dimensions"),
    ],
)
def test_a_bad_form_is_named(base_url: str, part: Any, code: str, param: str | None) -> None:
    refused = form(base_url, part)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, code, param)


def test_token_ids_must_be_those_of_pieces(base_url: str) -> None:
    for ids, code in (([[-1]], "invalid_token"), ([[99_999]], "invalid_token")):
        tree = {"model": "tiny", "input": ids, "token_ids": True}
        refused = httpx.post(f"{base_url}/v1/embeddings", json=tree)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (400, code, "input[0]")
    tree = {"model": "tiny", "input": [[1] * 49], "token_ids": True}
    error = httpx.post(f"{base_url}/v1/embeddings", json=tree).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input[0]")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "binary", "ubinary"])
def test_bytes_of_every_type(base_url: str, model: TrimodalModel, dtype: str) -> None:
    tree = {"model": "tiny", "input": ["red", "blue"], "embedding_dtype": dtype}
    accept = {"accept": "application/octet-stream"}
    answer = httpx.post(f"{base_url}/v1/embeddings", json=tree, headers=accept)
    rows = quantised(model.embed(text=["red", "blue"])["text"], dtype)
    assert answer.headers["x-embedding-dtype"] == dtype
    assert answer.headers["x-embedding-shape"] == f"2,{rows.shape[1]}"
    assert answer.content == rows.tobytes()
