import base64
import io
import json
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile

from trimodal.models import TrimodalModel
from trimodal.models.decoding import Decoding
from trimodal.testing import assert_close
from trimodal_serving.sounds import FORMATS


def spoken(sdk: openai.OpenAI, text: str, **fields: Any) -> Any:
    return sdk.audio.speech.create(model="tiny", input=text, voice="default", **fields)


@pytest.mark.parametrize(
    ("text", "extension", "lang"),
    [("a red square", {}, "en"), ("红色的方块", {}, "zh"), ("red", {"lang": "zh"}, "zh")],
)
def test_speech_is_the_model_s(
    sdk: openai.OpenAI, model: TrimodalModel, text: str, extension: dict[str, str], lang: str
) -> None:
    body = {"seed": 6, "trimodal": extension}
    answer = spoken(sdk, text, response_format="wav", extra_body=body)
    samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    expected = np.asarray(model.generate(text=[text], to="speech", lang=lang, seed=6)[0])
    assert rate == model.sample_rate
    assert samples.shape == expected.shape
    assert_close(samples, expected, "served-speech")


def test_options_reach_the_model(sdk: openai.OpenAI, model: TrimodalModel) -> None:
    options = {"steps": 3, "guidance": 2.5, "temperature": 0.5, "choice_temperature": 0.0}
    answer = spoken(sdk, "red", response_format="pcm", speed=1.0, extra_body={"trimodal": options})
    decoding = Decoding(steps=3, guidance=2.5, temperature=0.5, choice_temperature=0.0)
    (expected,) = model.generate(text=["red"], to="speech", lang="en", decoding=decoding)
    assert len(answer.content) == 2 * len(expected)


@pytest.mark.parametrize("form", [None, *FORMATS])
def test_the_content_type_is_that_of_the_format(sdk: openai.OpenAI, form: str | None) -> None:
    answer = spoken(sdk, "red", **({"response_format": form} if form else {}))
    assert answer.response.headers["content-type"].startswith(FORMATS[form or "mp3"].media_type)
    assert len(answer.content) > 100


def test_the_pieces_of_a_stream_are_the_file(sdk: openai.OpenAI, base_url: str) -> None:
    tree = {"model": "tiny", "input": "a red square", "voice": "default", "response_format": "flac"}
    answer = httpx.post(f"{base_url}/v1/audio/speech", json=tree | {"stream_format": "sse"})
    assert answer.headers["content-type"] == "text/event-stream"
    *lines, end = [line[6:] for line in answer.text.splitlines() if line]
    *pieces, done = map(json.loads, lines)
    assert end == "[DONE]"
    assert {piece["type"] for piece in pieces} == {"speech.audio.delta"}
    data = b"".join(base64.b64decode(piece["audio"]) for piece in pieces)
    assert data == spoken(sdk, "a red square", response_format="flac").content
    assert done["type"] == "speech.audio.done"
    usage = done["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 1


def test_voices(base_url: str) -> None:
    answer = httpx.get(f"{base_url}/v1/audio/voices").json()
    assert answer == {"voices": [{"id": "default", "name": "default"}]}


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": None}, "missing_field", "input"),
        ({"input": ""}, "empty_input", "input"),
        ({"input": 5}, "invalid_type", "input"),
        ({"input": "x" * 4097}, "context_length_exceeded", "input"),
        ({"input": "red " * 99}, "context_length_exceeded", "input"),
        ({"voice": None}, "missing_field", "voice"),
        ({"voice": "alloy"}, "unsupported_voice", "voice"),
        ({"response_format": "aac"}, "unsupported_format", "response_format"),
        ({"speed": 1.5}, "unsupported_field", "speed"),
        ({"instructions": "sadly"}, "unsupported_field", "instructions"),
        ({"stream_format": "json"}, "invalid_stream_format", "stream_format"),
        ({"trimodal": {"task": "answer"}}, "unknown_field", "trimodal.task"),
        ({"colour": 1}, "unknown_field", "colour"),
    ],
)
def test_a_bad_request_is_named(
    base_url: str, fields: dict[str, Any], code: str, param: str
) -> None:
    tree = {"model": "tiny", "input": "red", "voice": "default"} | fields
    answer = httpx.post(f"{base_url}/v1/audio/speech", json=tree)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
