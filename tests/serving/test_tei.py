from typing import Any

import httpx
import numpy as np
import pytest

from trimodal.models import TrimodalModel
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields
from trimodal_serving.inputs import Keep
from trimodal_serving.tei import parse


@pytest.mark.parametrize(
    ("fields", "keep"),
    [
        ({}, None),
        ({"truncate": True}, "start"),
        ({"truncate": True, "truncation_direction": "Left"}, "end"),
        ({"truncate": False, "truncation_direction": "Left", "normalize": True}, None),
    ],
)
def test_what_remains_of_a_text(fields: dict[str, Any], keep: str | None) -> None:
    (item,), length = parse(Fields({"inputs": "a", **fields}), (8, 16))
    assert (item.where, item.keep, length) == ("inputs", keep, 16)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"inputs": None}, "missing_field", "inputs"),
        ({"inputs": [1, 2]}, "token_ids_not_supported", "inputs"),
        ({"normalize": False}, "unsupported_field", "normalize"),
        ({"prompt_name": "query"}, "unsupported_field", "prompt_name"),
        ({"model": "tiny"}, "unknown_field", "model"),
    ],
)
def test_a_bad_request_is_named(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse(Fields({"inputs": "a", **fields}), (8, 16))
    assert (caught.value.code, caught.value.param) == (code, param)


def test_a_long_text_loses_the_end_that_is_said(base_url: str, model: TrimodalModel) -> None:
    words = [f"red square {i}" for i in range(60)]
    text = " ".join(words)
    assert model.processor is not None
    vectors = {}
    sides: dict[str, Keep] = {"Right": "start", "Left": "end"}
    for side, keep in sides.items():
        tree = {"inputs": [text, "red"], "truncate": True, "truncation_direction": side}
        vectors[side] = np.array(httpx.post(f"{base_url}/embed", json=tree).json())[0]
        medium = model.processor.text.medium(text, keep)
        assert medium.num_tokens == 48
        shorter = model.processor.text.decode(medium.features.tolist())
        assert shorter in text or shorter.strip() in text
    assert np.abs(vectors["Right"] - vectors["Left"]).max() > 1e-3
    tree = {"model": "tiny", "input": text, "truncate": True}
    same = httpx.post(f"{base_url}/v1/embeddings", json=tree).json()["data"][0]["embedding"]
    assert np.abs(vectors["Right"] - same).max() < 1e-6
    refused = httpx.post(f"{base_url}/embed", json={"inputs": text})
    assert refused.json()["error"]["code"] == "context_length_exceeded"


def test_info(base_url: str) -> None:
    tree = httpx.get(f"{base_url}/info").json()
    assert (tree["model_id"], tree["max_input_length"]) == ("tiny", 48)
    assert tree["max_client_batch_size"] == 2048
