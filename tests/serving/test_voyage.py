import json
from typing import Any

import numpy as np
import pytest

from trimodal.batch import Modality
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields
from trimodal_serving.inputs import Input
from trimodal_serving.media import EncodedMedium
from trimodal_serving.vectors import Embedded
from trimodal_serving.voyage import VoyageRequest, parse, render

IMAGE = "data:image/png;base64,AAAA"
PARTS = [
    {"type": "text", "text": "a"},
    {"type": "image_base64", "image_base64": IMAGE},
    {"type": "audio_base64", "audio_base64": "BBBB"},
]


def parsed(**fields: Any) -> VoyageRequest:
    return parse(Fields({"model": "tiny", **fields}), "tiny", (8, 16))


def test_parts_are_one_input() -> None:
    request = parsed(inputs=[{"content": PARTS}], input_type="query", truncation=False)
    media = {
        Modality.TEXT: "a",
        Modality.VISION: EncodedMedium(Modality.VISION, "AAAA"),
        Modality.SPEECH: EncodedMedium(Modality.SPEECH, "BBBB"),
    }
    assert request == VoyageRequest([Input("inputs[0]", media)], 16, "float32", False)


def test_texts_are_cut_unless_it_is_said() -> None:
    request = parsed(inputs=[{"content": "a"}], output_dimension=8, output_dtype="ubinary")
    assert request.inputs[0].keep == "start"
    assert (request.dimensions, request.dtype) == (8, "ubinary")


@pytest.mark.parametrize("name", ["encoding_format", "output_encoding"])
def test_base64(name: str) -> None:
    request = parsed(inputs=[{"content": "a"}], **{name: "base64"})
    vectors = np.array([[1, 0]], np.float32)
    tokens = [{Modality.TEXT: 2, Modality.SPEECH: 5}]
    embedded = Embedded(request.inputs, vectors, tokens)
    tree = json.loads(render(request, "tiny", embedded, pixels=48))
    item = {"object": "embedding", "embedding": "AACAPwAAAAA=", "index": 0}
    assert tree == {
        "object": "list",
        "data": [item],
        "model": "tiny",
        "usage": {
            "text_tokens": 2,
            "image_pixels": 48,
            "video_pixels": 0,
            "audio_tokens": 5,
            "total_tokens": 7,
        },
    }


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_field", "inputs"),
        ({"inputs": "a"}, "invalid_type", "inputs"),
        ({"inputs": []}, "empty_input", "inputs"),
        ({"inputs": ["a"]}, "invalid_type", "inputs[0]"),
        ({"inputs": [{"text": "a"}]}, "invalid_type", "inputs[0]"),
        (
            {"inputs": [{"content": [{"type": "video_url", "video_url": "x"}]}]},
            "invalid_input",
            "inputs[0]",
        ),
        (
            {"inputs": [{"content": [{"type": "image_url", "image_url": "ftp://x"}]}]},
            "url_not_allowed",
            "inputs[0]",
        ),
        ({"inputs": [{"content": "a"}], "truncation": "yes"}, "invalid_type", "truncation"),
        (
            {"inputs": [{"content": "a"}], "output_dtype": "bits"},
            "invalid_output_dtype",
            "output_dtype",
        ),
        ({"inputs": [{"content": "a"}], "dimensions": 8}, "unknown_field", "dimensions"),
    ],
)
def test_a_bad_request_is_named(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ServingError) as caught:
        parsed(**fields)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)
