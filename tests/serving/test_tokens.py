import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

from trimodal.batch import Modality
from trimodal.models import TrimodalModel
from trimodal.processors.codes import CodeProcessor


@pytest.fixture
def codes(model: TrimodalModel) -> CodeProcessor:
    assert model.processor is not None
    assert model.processor.codes is not None
    return model.processor.codes


def ask(base_url: str, what: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{base_url}/v1/tokens/{what}", json={"model": "tiny", **fields})


def test_pictures_and_back(
    base_url: str, model: TrimodalModel, codes: CodeProcessor, png: bytes
) -> None:
    data = base64.b64encode(png).decode()
    tree = ask(base_url, "encode", modality="image", data=data).json()
    assert model.processor is not None
    target = codes.target(model.processor.medium(Modality.VISION, png), ())
    start = codes.vocabulary.vision.start
    assert tree["codes"] == (target.ids - start).view(target.grid).tolist()
    assert tree["codebook_sizes"] == [16]
    made = ask(base_url, "decode", modality="image", codes=tree["codes"]).json()
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(made["data"]))))
    assert np.array_equal(pixels, codes.pictures([target])[0])
    assert (made["modality"], made["format"]) == ("image", "png")


def test_speech_and_back(
    base_url: str, model: TrimodalModel, codes: CodeProcessor, wav: bytes
) -> None:
    data = f"data:audio/wav;base64,{base64.b64encode(wav).decode()}"
    tree = ask(base_url, "encode", modality="audio", data=data).json()
    assert model.processor is not None
    target = codes.target(model.processor.medium(Modality.SPEECH, wav), ())
    assert tree["codes"] == [(target.ids - codes.vocabulary.speech.start).tolist()]
    made = ask(base_url, "decode", modality="speech", codes=tree["codes"], format="flac").json()
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(made["data"])), dtype="float32")
    assert rate == model.sample_rate
    assert np.abs(samples - codes.waveforms([target])[0]).max() < 1e-4
    assert (made["modality"], made["format"]) == ("audio", "flac")


def test_texts_and_back(base_url: str) -> None:
    text = "a red square, 红色"
    tree = ask(base_url, "encode", modality="text", data=text).json()
    assert len(tree["codes"]) == 1
    assert tree["usage"]["total_tokens"] == len(tree["codes"][0])
    made = ask(base_url, "decode", modality="text", codes=tree["codes"]).json()
    assert made == {"object": "medium", "model": "tiny", "modality": "text", "data": text}


@pytest.mark.parametrize(
    ("what", "fields", "code", "param"),
    [
        ("encode", {"data": "a"}, "missing_field", "modality"),
        ("encode", {"modality": "video", "data": "a"}, "invalid_modality", "modality"),
        ("encode", {"modality": "text"}, "missing_field", "data"),
        ("encode", {"modality": "text", "data": "red " * 99}, "context_length_exceeded", "data"),
        ("encode", {"modality": "image", "data": "AAAA"}, "invalid_image", "data"),
        ("encode", {"modality": "image", "data": "http://x"}, "url_not_allowed", "data"),
        ("decode", {"modality": "text", "codes": [1]}, "invalid_codes", "codes"),
        ("decode", {"modality": "text", "codes": [[1.5]]}, "invalid_codes", "codes"),
        ("decode", {"modality": "text", "codes": [[True]]}, "invalid_codes", "codes"),
        ("decode", {"modality": "text", "codes": [[99999]]}, "invalid_codes", "codes"),
        ("decode", {"modality": "image", "codes": [[-1]]}, "invalid_codes", "codes"),
        ("decode", {"modality": "image", "codes": [[16]]}, "invalid_codes", "codes"),
        ("decode", {"modality": "image", "codes": [[1, 2], [3]]}, "invalid_codes", "codes"),
        ("decode", {"modality": "image", "codes": [[]]}, "invalid_codes", "codes"),
        ("decode", {"modality": "image", "codes": [[1] * 9] * 9}, "invalid_codes", "codes"),
        ("decode", {"modality": "audio", "codes": [[1], [2]]}, "invalid_codes", "codes"),
        ("decode", {"modality": "audio", "codes": [[1] * 9999]}, "invalid_codes", "codes"),
        (
            "decode",
            {"modality": "image", "codes": [[1]], "format": "wav"},
            "unsupported_format",
            "format",
        ),
        (
            "decode",
            {"modality": "text", "codes": [[1]], "format": "png"},
            "unsupported_format",
            "format",
        ),
    ],
)
def test_a_bad_request_is_named(
    base_url: str, what: str, fields: dict[str, Any], code: str, param: str
) -> None:
    refused = ask(base_url, what, **fields)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, code, param)
