from typing import Any

import httpx
import openai
import pytest

from trimodal.models import TrimodalModel
from trimodal.models.decoding import Decoding


@pytest.fixture(scope="module")
def texts(model: TrimodalModel, wav: bytes) -> dict[Any, str]:
    """What the model hears, by language."""
    langs = (None, "en", "zh")
    return {lang: str(model.generate(speech=[wav], to="text", lang=lang)[0]) for lang in langs}


def heard(sdk: openai.OpenAI, wav: bytes, **fields: Any) -> Any:
    return sdk.audio.transcriptions.create(model="tiny", file=("a.wav", wav), **fields)


def test_verbose_answers_have_the_duration(
    sdk: openai.OpenAI, texts: dict[Any, str], wav: bytes
) -> None:
    answer = heard(sdk, wav, language="zh", response_format="verbose_json")
    assert (answer.text, answer.language) == (texts["zh"], "chinese")
    assert abs(answer.duration - 0.5) < 0.1


def test_draws_at_a_temperature(sdk: openai.OpenAI, model: TrimodalModel, wav: bytes) -> None:
    drawn = model.generate(speech=[wav], to="text", seed=3, decoding=Decoding(temperature=1.5))
    assert heard(sdk, wav, temperature=1.5, extra_body={"seed": 3}).text == drawn[0]


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "other"}, 404, "model_not_found", "model"),
        ({"model": ""}, 400, "missing_field", "model"),
        ({"response_format": "srt"}, 400, "unsupported_format", "response_format"),
        ({"response_format": "vtt"}, 400, "unsupported_format", "response_format"),
        ({"response_format": "xml"}, 400, "unsupported_format", "response_format"),
        ({"response_format": "text", "stream": "true"}, 400, "unsupported_format", None),
        ({"language": "fr"}, 400, "unsupported_language", "language"),
        ({"prompt": "colours"}, 400, "unsupported_field", "prompt"),
        ({"timestamp_granularities[]": "word"}, 400, "unsupported_field", None),
        ({"include[]": "logprobs"}, 400, "unsupported_field", None),
        ({"temperature": "hot"}, 400, "invalid_temperature", "temperature"),
        ({"stream": "perhaps"}, 400, "invalid_type", "stream"),
        ({"colour": "red"}, 400, "unknown_field", "colour"),
    ],
)
def test_a_bad_form_is_named(
    base_url: str, wav: bytes, fields: dict[str, str], status: int, code: str, param: str | None
) -> None:
    answer = httpx.post(
        f"{base_url}/v1/audio/transcriptions",
        data={"model": "tiny"} | fields,
        files={"file": ("a.wav", wav)},
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert param is None or error["param"] == param
    if code == "unsupported_format" and fields["response_format"] in ("srt", "vtt"):
        assert "no times" in error["message"]


@pytest.mark.parametrize("path", ["transcriptions", "translations"])
def test_bad_files_are_named(base_url: str, path: str, png: bytes) -> None:
    def post(**fields: Any) -> tuple[int, str, str]:
        answer = httpx.post(f"{base_url}/v1/audio/{path}", **fields)
        error = answer.json()["error"]
        return answer.status_code, error["code"], error["param"]

    data = {"model": "tiny"}
    assert post(data=data, files={"file": ("a.wav", png)}) == (400, "invalid_audio", "file")
    assert post(data=data, files={"file": ("a.wav", b"")}) == (400, "invalid_audio", "file")
    assert post(data=data, files={"sound": ("a.wav", b"x")}) == (400, "missing_field", "file")
    assert post(json=data)[:2] == (415, "unsupported_content_type")
    extra = {"file": ("a.wav", b"x"), "other": ("b.wav", b"x")}
    assert post(data=data, files=extra)[:2] == (400, "unknown_field")


def test_a_translation_takes_no_language(base_url: str, wav: bytes) -> None:
    answer = httpx.post(
        f"{base_url}/v1/audio/translations",
        data={"model": "tiny", "language": "zh"},
        files={"file": ("a.wav", wav)},
    )
    assert answer.json()["error"]["code"] == "unknown_field"
