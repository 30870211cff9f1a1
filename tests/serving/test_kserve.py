import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from trimodal.models import TrimodalModel
from trimodal_serving.kserve import HEADER


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, timeout=30) as client:
        yield client


def tensor(name: str, *data: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": list(data), **more}


def infer(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v2/models/tiny/infer", json=fields)


def packed(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def binary(client: httpx.Client, tree: dict[str, Any], tail: bytes) -> httpx.Response:
    head = json.dumps(tree).encode()
    headers = {HEADER: str(len(head))}
    return client.post("/v2/models/tiny/infer", content=head + tail, headers=headers)


def test_tensors_side_by_side_are_fused(
    client: httpx.Client, model: TrimodalModel, png: bytes
) -> None:
    picture = base64.b64encode(png).decode()
    answer = infer(
        client, id="7", inputs=[tensor("text", "red", "blue"), tensor("image", picture, picture)]
    ).json()
    assert (answer["id"], answer["model_name"]) == ("7", "tiny")
    (output,) = answer["outputs"]
    assert (output["shape"], output["datatype"]) == ([2, 16], "FP32")
    expected = model.embed(text=["red", "blue"], image=[png, png])["fused"]
    assert np.abs(np.array(output["data"]).reshape(2, 16) - expected).max() < 1e-6


def test_bytes_behind_the_json(
    client: httpx.Client, model: TrimodalModel, png: bytes, wav: bytes
) -> None:
    inputs, tail = [], b""
    for name, data in (("image", png), ("audio", wav), ("text", "红".encode())):
        part = packed(data, data)
        parameters = {"binary_data_size": len(part)}
        inputs.append(tensor(name, shape=[2, 1], parameters=parameters) | {"data": None})
        tail += part
    outputs = [{"name": "embedding", "parameters": {"binary_data": True}}]
    answer = binary(client, {"inputs": inputs, "outputs": outputs}, tail)
    assert answer.status_code == 200, answer.text
    size = int(answer.headers[HEADER])
    (output,) = json.loads(answer.content[:size])["outputs"]
    assert output["parameters"] == {"binary_data_size": 2 * 16 * 4}
    vectors = np.frombuffer(answer.content[size:], "<f4").reshape(output["shape"])
    expected = model.embed(image=[png], speech=[wav], text=["红"])["fused"]
    assert np.abs(vectors - expected).max() < 1e-6


def test_shorter_vectors(client: httpx.Client) -> None:
    answer = infer(client, inputs=[tensor("text", "red")], parameters={"dimensions": 8}).json()
    assert answer["outputs"][0]["shape"] == [1, 8]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_field", "inputs"),
        ({"inputs": []}, "invalid_type", "inputs"),
        ({"inputs": [7]}, "invalid_type", "inputs[0]"),
        ({"inputs": [tensor("video", "a")]}, "unknown_tensor", "inputs[0].name"),
        (
            {"inputs": [tensor("text", "a"), tensor("text", "b")]},
            "duplicate_modality",
            "inputs[1].name",
        ),
        ({"inputs": [tensor("text", "a"), tensor("image", "A", "B")]}, "invalid_shape", "inputs"),
        ({"inputs": [tensor("text")]}, "empty_input", "inputs"),
        ({"inputs": [tensor("text", "a", datatype="FP32")]}, "invalid_type", "inputs[0].datatype"),
        ({"inputs": [tensor("text", "a", shape=[2])]}, "invalid_shape", "inputs[0].data"),
        ({"inputs": [tensor("text", "a", shape=[1, 2])]}, "invalid_shape", "inputs[0].shape"),
        ({"inputs": [tensor("text", "a", shape=[-1])]}, "invalid_shape", "inputs[0].shape"),
        ({"inputs": [tensor("text", "a", shape=[])]}, "invalid_shape", "inputs[0].shape"),
        ({"inputs": [tensor("text") | {"data": None}]}, "missing_field", "inputs[0].data"),
        ({"inputs": [tensor("text", " ")]}, "empty_input", "text[0]"),
        ({"inputs": [tensor("image", "http://x")]}, "url_not_allowed", "image[0]"),
        ({"inputs": [tensor("image", "AAAA")]}, "invalid_image", "image[0]"),
        (
            {"inputs": [tensor("text", "a")], "outputs": [{"name": "x"}]},
            "unknown_tensor",
            "outputs[0].name",
        ),
        ({"inputs": [tensor("text", "a")], "id": 7}, "invalid_type", "id"),
        (
            {"inputs": [tensor("text", "a")], "parameters": {"x": 1}},
            "unknown_field",
            "parameters.x",
        ),
    ],
)
def test_a_bad_request_is_named(
    client: httpx.Client, fields: dict[str, Any], code: str, param: str
) -> None:
    refused = infer(client, **fields)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, code, param)


@pytest.mark.parametrize(
    ("size", "tail", "code"),
    [
        (9, packed(b"red"), "invalid_binary_data_size"),
        (7, packed(b"red") + b"x", "invalid_shape"),
        (6, packed(b"red"), "invalid_shape"),
        (7, struct.pack("<I", 2**31) + b"red", "invalid_shape"),
        (6, packed(b"\xff\xff"), "invalid_text"),
    ],
)
def test_bad_bytes_are_named(client: httpx.Client, size: int, tail: bytes, code: str) -> None:
    part = tensor("text", shape=[1], parameters={"binary_data_size": size}) | {"data": None}
    refused = binary(client, {"inputs": [part]}, tail)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, code)


def test_a_wrong_length_of_the_json(client: httpx.Client) -> None:
    for size in ("99", "x", "9" * 20):
        refused = client.post("/v2/models/tiny/infer", content=b"{}", headers={HEADER: size})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_request")


def test_another_model(client: httpx.Client) -> None:
    refused = client.post("/v2/models/other/infer", json={"inputs": [tensor("text", "a")]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


def test_metadata(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    tree = client.get("/v2/models/tiny").json()
    assert [one["name"] for one in tree["inputs"]] == ["text", "image", "audio"]
    assert tree["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 16]}]
