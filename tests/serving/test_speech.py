import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
import soundfile

from trimodal.models import TrimodalModel
from trimodal.models.decoding import Decoding
from trimodal_serving.engine import Engine
from trimodal_serving.sounds import FORMATS, GROWING


def spoken(sdk: openai.OpenAI, text: str, **fields: Any) -> Any:
    return sdk.audio.speech.create(model="tiny", input=text, voice="default", **fields)


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


EARLY = {"trimodal": {"steps": 16, "schedule": "linear", "earliness": 100}}
"""One code after the other."""


def events_of(base_url: str, **fields: Any) -> list[dict[str, Any]]:
    tree = {"model": "tiny", "input": "a red square", "voice": "default", **fields}
    answer = httpx.post(f"{base_url}/v1/audio/speech", json=tree | {"stream_format": "sse"})
    assert answer.headers["content-type"] == "text/event-stream"
    *lines, end = [line[6:] for line in answer.text.splitlines() if line]
    assert end == "[DONE]"
    return [json.loads(line) for line in lines]


def streamed(base_url: str, **fields: Any) -> tuple[list[bytes], dict[str, Any]]:
    """The pieces of a file, and what its last event says."""
    *pieces, done = events_of(base_url, **fields)
    assert {piece["type"] for piece in pieces} == {"speech.audio.delta"}
    assert done["type"] == "speech.audio.done"
    return [base64.b64decode(piece["audio"]) for piece in pieces], done["usage"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("extension", [{}, EARLY])
def test_the_pieces_of_a_stream_are_the_file(
    voiced: TrimodalModel,
    sdk: openai.OpenAI,
    base_url: str,
    form: str,
    extension: dict[str, Any],
) -> None:
    pieces, usage = streamed(base_url, response_format=form, **extension)
    data = b"".join(pieces)
    whole = spoken(sdk, "a red square", response_format=form, extra_body=extension).content
    if form in ("ogg", "opus"):  # their pages have a number that libsndfile draws
        assert len(data) == len(whole)
    elif form == "wav":  # when it began nobody knew how long it would be
        assert data[44:] == whole[44:]
    else:
        assert data == whole
    # sound needs 10 of the 15 codes, and a compressed file is cut by its size
    assert len(pieces) == (6 if form in GROWING and extension else 1)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 1


@pytest.mark.parametrize("form", ["wav", "flac"])
@pytest.mark.parametrize("partial", [1, 3])
def test_a_stream_shows_what_it_will_be(
    voiced: TrimodalModel, sdk: openai.OpenAI, base_url: str, form: str, partial: int
) -> None:
    options = {"partial_sounds": partial}
    events = events_of(base_url, response_format=form, trimodal=options)
    drafts = [one for one in events if one["type"] == "speech.audio.partial"]
    assert events[:partial] == drafts, "they come before all else"
    assert [one["partial_index"] for one in drafts] == list(range(partial))
    pieces = [base64.b64decode(one["audio"]) for one in events[partial:-1]]
    whole = spoken(sdk, "a red square", response_format=form).content
    assert b"".join(pieces) == whole
    files = [base64.b64decode(one["audio"]) for one in drafts]
    sounds = [soundfile.read(io.BytesIO(file))[0] for file in (*files, whole)]
    assert {sound.shape for sound in sounds} == {sounds[-1].shape}
    assert len({sound.tobytes() for sound in sounds}) == partial + 1


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("extension", [{}, EARLY])
def test_the_bytes_of_a_stream_are_the_file(
    voiced: TrimodalModel, sdk: openai.OpenAI, form: str, extension: dict[str, Any]
) -> None:
    options = {"response_format": form, "extra_body": extension}
    whole = spoken(sdk, "a red square", **options)
    speech = sdk.audio.speech.with_streaming_response
    fields: Any = {"model": "tiny", "input": "a red square", "voice": "default", **options}
    with speech.create(stream_format="audio", **fields) as answer:
        data = b"".join(answer.iter_bytes())
        headers = answer.headers
    assert headers["content-type"] == whole.response.headers["content-type"]
    assert ("content-length" in headers) == (form not in GROWING), "the others come at once"
    if form in ("ogg", "opus"):  # their pages have a number that libsndfile draws
        assert len(data) == len(whole.content)
    elif form == "wav":  # when it began nobody knew how long it would be
        assert data[44:] == whole.content[44:]
        assert data[40:44] == data[4:8] == b"\xff" * 4
        samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
        assert (samples.tobytes(), rate) == (data[44:], voiced.sample_rate)
    else:
        assert data == whole.content


def collect(found: Iterator[bytes], into: list[bytes]) -> None:
    for chunk in found:  # `extend` might lose what came before an error
        into.append(chunk)


@pytest.mark.parametrize("form", GROWING)
def test_the_bytes_of_a_stream_are_cut_where_it_fails(
    voiced: TrimodalModel, scripted: Any, serve: Callable[..., Any], form: str
) -> None:
    tree = {"model": "tiny", "input": "red", "voice": "default", "response_format": form}
    tree |= {"stream_format": "audio", **EARLY}
    path, chunks = "/v1/audio/speech", list[bytes]()
    with serve(Engine(lambda: scripted)) as server:
        server.wait_until_ready()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            whole = client.post(path, json=tree).content
            scripted.fails_at = scripted.steps + 1
            early = client.post(path, json=tree)
            scripted.fails_at = scripted.steps + 14
            with (
                client.stream("POST", path, json=tree) as answer,
                pytest.raises(httpx.RemoteProtocolError, match="incomplete"),
            ):
                collect(answer.iter_raw(), chunks)
            series = ""
            for _ in range(100):  # it is written down a moment after
                series = series if "internal" in series else client.get("/metrics").text
    assert (early.status_code, early.json()["error"]["code"]) == (500, "internal")
    assert answer.status_code == 200
    assert 44 < len(b"".join(chunks)) < len(whole)
    assert whole.startswith(b"".join(chunks)), "and no word of the error is taken for sound"
    assert 'trimodal_rejected_total{reason="internal"} 2.0' in series


@pytest.mark.parametrize("stream_format", ["sse", "audio"])
def test_a_client_that_leaves_in_the_middle_ends_the_work_and_pays(
    voiced: TrimodalModel, scripted: Any, serve: Callable[..., Any], stream_format: str
) -> None:
    tree = {"model": "tiny", "input": "red", "voice": "default", "response_format": "pcm"}
    tree |= {"stream_format": stream_format, **EARLY}
    with serve(Engine(lambda: scripted)) as server:
        server.wait_until_ready()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            with client.stream("POST", "/v1/audio/speech", json=tree) as answer:
                assert (b"speech.audio.delta" in next(answer.iter_raw())) == (
                    stream_format == "sse"
                )
                scripted.gate.clear()
            assert client.get("/v1/models").status_code == 200  # the loop has seen the disconnect
            scripted.gate.set()
            series = ""
            for _ in range(100):  # it is written down a moment after
                series = series if "client_closed" in series else client.get("/metrics").text
    assert scripted.steps < 15
    assert 'trimodal_rejected_total{reason="client_closed_request"} 1.0' in series
    (used,) = re.findall(r'tenant_tokens_total{tenant="[^"]*"} ([0-9.]+)', series)
    assert float(used) > 2 * 15 * 15, "all that it could have cost, as for a text"


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
        ({"trimodal": {"partial_sounds": 1}}, "unsupported_field", "trimodal.partial_sounds"),
        (
            {"stream_format": "sse", "trimodal": {"partial_sounds": 4}},
            "invalid_partial_sounds",
            "trimodal.partial_sounds",
        ),
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
