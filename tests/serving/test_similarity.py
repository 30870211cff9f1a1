import base64
from typing import Any

import httpx
import numpy as np
import pytest

from trimodal.models import TrimodalModel, cut
from trimodal_serving import similarity


def compare(base_url: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{base_url}/v1/similarity", json={"model": "tiny", **fields})


def test_cosines_are_those_of_the_library(base_url: str, model: TrimodalModel, png: bytes) -> None:
    picture = base64.b64encode(png).decode()
    answer = compare(
        base_url, queries=["red", "blue"], documents=["green", {"image": picture}, "red"]
    )
    texts = model.embed(text=["red", "blue", "green"])["text"]
    image = model.embed(image=[png])["image"]
    expected = texts[:2] @ np.concatenate([texts[2:], image, texts[:1]]).T
    found = np.array(answer.json()["similarities"])
    assert np.abs(found - expected).max() < 1e-6
    assert found[0, 2] == pytest.approx(1, abs=1e-6)
    assert answer.json()["usage"]["prompt_tokens_details"]["image_tokens"] > 0


def test_shorter_vectors(base_url: str, model: TrimodalModel) -> None:
    answer = compare(base_url, queries="red", documents="blue", dimensions=8).json()
    left, right = cut(model.embed(text=["red", "blue"])["text"], 8)
    assert answer["similarities"][0][0] == pytest.approx(float(left @ right), abs=1e-6)


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"queries": "a"}, 400, "missing_field", "documents"),
        ({"queries": [], "documents": "a"}, 400, "empty_input", "queries"),
        ({"queries": "a", "documents": ["b", ""]}, 400, "empty_input", "documents[1]"),
        ({"queries": "a", "documents": "a" * 9999}, 400, "context_length_exceeded", "documents"),
        (
            {"queries": "a", "documents": "b", "dimensions": 7},
            400,
            "invalid_dimensions",
            "dimensions",
        ),
        ({"queries": ["a"] * 1024, "documents": ["b"] * 1025}, 413, "too_many_inputs", "documents"),
    ],
)
def test_a_bad_request_is_named(
    base_url: str, fields: dict[str, Any], status: int, code: str, param: str
) -> None:
    refused = compare(base_url, **fields)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (status, code, param)


def test_an_answer_is_not_larger_than_it_may_be(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "MOST_PAIRS", 3)
    assert compare(base_url, queries=["a"], documents=["b", "c", "d"]).status_code == 200
    refused = compare(base_url, queries=["a", "b"], documents=["c", "d"])
    assert refused.json()["error"]["code"] == "too_many_inputs"
