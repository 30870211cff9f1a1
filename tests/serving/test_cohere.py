import json
from typing import Any

import numpy as np
import pytest

from trimodal.batch import Modality
from trimodal_serving.cohere import CohereRequest, parse, render
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields
from trimodal_serving.inputs import Input
from trimodal_serving.media import EncodedMedium
from trimodal_serving.vectors import Embedded

IMAGE = "data:image/png;base64,AAAA"
PARTS = [
    {"type": "text", "text": "a"},
    {"type": "image_url", "image_url": {"url": IMAGE}},
]


def parsed(**fields: Any) -> CohereRequest:
    return parse(Fields({"model": "tiny", **fields}), "tiny", (8, 16))


def test_defaults() -> None:
    request = parsed(texts=["a", "http://x"])
    assert [one.media for one in request.inputs] == [
        {Modality.TEXT: "a"},
        {Modality.TEXT: "http://x"},
    ]
    assert [one.where for one in request.inputs] == ["texts[0]", "texts[1]"]
    assert (request.dimensions, request.types, request.texts) == (16, ["float"], ["a", "http://x"])
    assert {one.keep for one in request.inputs} == {"start"}


def test_images_and_inputs() -> None:
    seen = EncodedMedium(Modality.VISION, "AAAA")
    assert parsed(images=[IMAGE], input_type="image").inputs[0].media == {Modality.VISION: seen}
    request = parsed(inputs=[{"content": PARTS}], truncate="START")
    media = {Modality.TEXT: "a", Modality.VISION: seen}
    assert request.inputs == [Input("inputs[0]", media, "end")]
    assert request.texts is None
    assert parsed(texts=["a"], truncate="NONE").inputs[0].keep is None


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "invalid_input", None),
        ({"texts": ["a"], "images": [IMAGE]}, "invalid_input", None),
        ({"texts": "a"}, "invalid_type", "texts"),
        ({"texts": []}, "empty_input", "texts"),
        ({"texts": ["a", {"image": IMAGE}]}, "invalid_type", "texts[1]"),
        ({"texts": [[1, 2]]}, "invalid_type", "texts[0]"),
        ({"images": ["file:///y.png"]}, "url_not_allowed", "images[0]"),
        ({"inputs": ["a"]}, "invalid_type", "inputs[0]"),
        ({"texts": ["a"], "output_dimension": 9}, "invalid_dimensions", "output_dimension"),
        ({"texts": ["a"], "embedding_types": []}, "invalid_embedding_types", "embedding_types"),
        ({"texts": ["a"], "embedding_types": "int8"}, "invalid_embedding_types", "embedding_types"),
        (
            {"texts": ["a"], "embedding_types": [["x"]]},
            "invalid_embedding_types",
            "embedding_types",
        ),
        ({"texts": ["a"], "input_type": "passage"}, "invalid_input_type", "input_type"),
        ({"texts": ["a"], "truncate": True}, "invalid_truncate", "truncate"),
        ({"texts": ["a"], "max_tokens": 7}, "unsupported_field", "max_tokens"),
        ({"texts": ["a"], "colour": 7}, "unknown_field", "colour"),
    ],
)
def test_a_bad_request_is_named(fields: dict[str, Any], code: str, param: str | None) -> None:
    with pytest.raises(ServingError) as caught:
        parsed(**fields)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


def test_answer() -> None:
    request = parsed(texts=["a"], embedding_types=["ubinary", "int8", "float", "int8"])
    vectors = np.array([[0.5, -1, 0, 0.25, 0, 0, 0, -0.5]], np.float32)
    tokens = [{Modality.TEXT: 3, Modality.VISION: 4}]
    tree = json.loads(render(request, Embedded(request.inputs, vectors, tokens)))
    assert tree["embeddings"] == {
        "ubinary": [[0b10111110]],
        "int8": [[64, -127, 0, 32, 0, 0, 0, -64]],
        "float": vectors.tolist(),
    }
    assert tree["texts"] == ["a"]
    assert tree["response_type"] == "embeddings_by_type"
    assert tree["meta"]["billed_units"] == {"input_tokens": 3, "image_tokens": 4}
