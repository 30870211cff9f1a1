import base64
import io
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from trimodal.models import TrimodalModel
from trimodal.models.decoding import Decoding


def drawn(sdk: openai.OpenAI, **fields: Any) -> tuple[Any, list[Image.Image]]:
    answer = sdk.images.generate(**{"model": "tiny", "prompt": "a red square", **fields})
    assert answer.data is not None
    files = [base64.b64decode(item.b64_json or "") for item in answer.data]
    return answer, [Image.open(io.BytesIO(file)) for file in files]


def test_size_and_options_reach_the_model(sdk: openai.OpenAI, model: TrimodalModel) -> None:
    options = {"steps": 2, "guidance": 1.0, "temperature": 0.0, "choice_temperature": 0.0}
    options |= {"schedule": "linear"}
    answer, (picture,) = drawn(sdk, size="8x4", quality="auto", extra_body={"trimodal": options})
    decoding = Decoding(steps=2, temperature=0.0, choice_temperature=0.0, schedule="linear")
    (expected,) = model.generate(text=["a red square"], to="image", size=(4, 8), decoding=decoding)
    assert answer.size == "8x4"
    assert np.array_equal(np.asarray(picture), expected)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"prompt": None}, "missing_field", "prompt"),
        ({"prompt": " "}, "empty_input", "prompt"),
        ({"prompt": "red " * 99}, "context_length_exceeded", "prompt"),
        ({"n": 0}, "invalid_n", "n"),
        ({"n": 11}, "invalid_n", "n"),
        ({"size": "10x8"}, "invalid_size", "size"),
        ({"size": "4000x4000"}, "invalid_size", "size"),
        ({"size": "0x0"}, "invalid_size", "size"),
        ({"size": "large"}, "invalid_size", "size"),
        ({"size": 64}, "invalid_size", "size"),
        ({"response_format": "url"}, "unsupported_field", "response_format"),
        ({"output_format": "gif"}, "unsupported_format", "output_format"),
        ({"stream": 1}, "invalid_type", "stream"),
        ({"partial_images": 4}, "invalid_partial_images", "partial_images"),
        ({"background": "transparent"}, "unsupported_field", "background"),
        ({"seed": "x"}, "invalid_seed", "seed"),
        ({"trimodal": {"lang": "en"}}, "unknown_field", "trimodal.lang"),
        ({"colour": 1}, "unknown_field", "colour"),
    ],
)
def test_a_bad_request_is_named(
    base_url: str, fields: dict[str, Any], code: str, param: str
) -> None:
    tree = {"model": "tiny", "prompt": "red"} | fields
    answer = httpx.post(f"{base_url}/v1/images/generations", json=tree)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
    if fields.get("size") == "10x8":
        assert "multiples of 4" in error["message"]


def test_what_is_shown_comes_to_the_picture(sdk: openai.OpenAI) -> None:
    """With one step left, all but the codes of that step are those of the picture."""
    options = {"trimodal": {"steps": 4}, "seed": 1}
    with sdk.images.generate(
        model="tiny", prompt="red", stream=True, partial_images=3, extra_body=options
    ) as events:
        pictures = [Image.open(io.BytesIO(base64.b64decode(one.b64_json))) for one in events]
    assert len(pictures) == 4
    *before, last = [np.asarray(picture, float) for picture in pictures]
    apart = [float((one != last).any(-1).mean()) for one in before]
    assert apart[0] > 0
    assert apart[-1] <= apart[0]
