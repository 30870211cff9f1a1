import base64
import io
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile

from trimodal.models import TrimodalModel
from trimodal.models.decoding import Decoding
from trimodal.testing import assert_close
from trimodal_serving.chat import parse
from trimodal_serving.engine import Engine
from trimodal_serving.errors import ServingError

SHORT = 9
"""Pieces of the texts here, so that the tests are fast."""
GREEDY = Decoding(temperature=0.0, max_tokens=SHORT)


def url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def seen(png: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url(png, "image/png")}}


def heard(wav: bytes) -> dict[str, Any]:
    return {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(wav).decode(), "format": "wav"},
    }


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def ask(sdk: openai.OpenAI, content: Any, **fields: Any) -> Any:
    fields = {"max_tokens": SHORT} | fields
    return sdk.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": content}], **fields
    )


@pytest.fixture(scope="module")
def cases(model: TrimodalModel, png: bytes, wav: bytes) -> dict[str, tuple[Any, Any, str]]:
    """Contents, extensions and the texts that the model generates for them."""

    def text(**media: Any) -> str:
        return str(model.generate(to="text", decoding=GREEDY, **media)[0])

    listened = {"type": "audio_url", "audio_url": {"url": url(wav, "audio/wav")}}
    both = {"image": [png], "text": ["red?"]}
    return {
        "to-chinese": ("a red square", {}, text(text=["a red square"], lang="zh")),
        "to-english": ([said("红色的方块")], {}, text(text=["红色的方块"], lang="en")),
        "same": ("red", {"lang": "en"}, text(text=["red"], lang="en")),
        "picture": ([seen(png)], {}, text(image=[png])),
        "chinese-picture": ([seen(png)], {"lang": "zh"}, text(image=[png], lang="zh")),
        "speech": ([heard(wav)], {}, text(speech=[wav])),
        "address": ([listened], {}, text(speech=[wav])),
        "two": ([seen(png), heard(wav)], {}, text(image=[png], speech=[wav])),
        "question": ([said("red?"), seen(png)], {}, text(**both, answer=True)),
        "spoken-question": (
            [seen(png), heard(wav)],
            {"task": "answer"},
            text(image=[png], speech=[wav], answer=True),
        ),
        "spoken-question-alone": (
            [heard(wav)],
            {"task": "answer", "lang": "en"},
            text(speech=[wav], answer=True, lang="en"),
        ),
        "no-question": ([said("red?"), seen(png)], {"task": "describe"}, text(**both)),
        "complete": ("the square", {"task": "complete"}, text(complete=["the square"])),
        "complete-picture": (
            [said("the"), seen(png)],
            {"task": "complete"},
            text(complete=["the"], image=[png]),
        ),
    }


@pytest.mark.parametrize("stream", [False, True])
def test_every_task_gives_the_text_of_the_model(
    sdk: openai.OpenAI, cases: dict[str, tuple[Any, Any, str]], stream: bool
) -> None:
    for name, (content, extension, expected) in cases.items():
        answer = ask(sdk, content, extra_body={"trimodal": extension}, stream=stream)
        if stream:
            chunks = list(answer)
            assert chunks[0].choices[0].delta.role == "assistant"
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            reason = chunks[-1].choices[0].finish_reason
        else:
            text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert text == expected, name
        assert reason in ("stop", "length")


def test_guidance_reaches_the_model(sdk: openai.OpenAI, model: TrimodalModel) -> None:
    decoding = Decoding(temperature=0.0, max_tokens=SHORT, guidance=3.0)
    answer = ask(sdk, "red", extra_body={"trimodal": {"guidance": 3, "lang": "en"}})
    expected = model.generate(text=["red"], to="text", lang="en", decoding=decoding)
    assert answer.choices[0].message.content == expected[0]


@pytest.mark.parametrize("form", ["wav", "flac", "pcm16", "mp3", "opus"])
def test_an_answer_that_is_speech(
    sdk: openai.OpenAI, model: TrimodalModel, png: bytes, form: str
) -> None:
    answer = ask(
        sdk,
        [seen(png)],
        modalities=["text", "audio"],
        audio={"voice": "default", "format": form},
        seed=2,
    )
    message = answer.choices[0].message
    expected = np.asarray(model.generate(image=[png], to="speech", seed=2)[0])
    data = base64.b64decode(message.audio.data)
    assert message.content is None
    assert message.audio.expires_at > time.time()
    if form in ("wav", "flac"):
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
        assert rate == model.sample_rate
        assert_close(samples, expected, "served-speech")
    elif form == "pcm16":
        assert len(data) == 2 * len(expected)
    wav = io.BytesIO()
    soundfile.write(wav, expected, model.sample_rate, format="WAV", subtype="PCM_16")
    assert message.audio.transcript == model.generate(speech=[wav.getvalue()], to="text")[0]


def user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


SYSTEM = {"messages": [{"role": "system", "content": "x"}, *user("red")["messages"]]}
TURNS = {"messages": user("red")["messages"] * 2}
TOOLS = [{"type": "function", "function": {"name": "f"}}]
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}}
ELSEWHERE = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
BAD: list[tuple[dict[str, Any], str, str | None]] = [
    ({"messages": None}, "missing_field", "messages"),
    ({"messages": "red"}, "invalid_type", "messages"),
    ({"messages": []}, "unsupported_messages", "messages"),
    (SYSTEM, "unsupported_messages", "messages"),
    (TURNS, "unsupported_messages", "messages"),
    (user(None), "missing_field", "messages[0].content"),
    (user(""), "empty_input", "messages[0].content"),
    (user([{"type": "file"}]), "invalid_input", "messages[0].content"),
    (user([said("a"), said("b")]), "duplicate_modality", "messages[0].content"),
    (user(ELSEWHERE), "url_not_allowed", "messages[0].content"),
    (user([seen(b"GIF89a")]), "invalid_image", "messages[0].content"),
    (user("red " * 99), "context_length_exceeded", "messages[0].content"),
    ({"tools": TOOLS}, "unsupported_field", "tools"),
    ({"functions": TOOLS}, "unsupported_field", "functions"),
    ({"logprobs": True}, "unsupported_field", "logprobs"),
    ({"response_format": {"type": "json_object"}}, "unsupported_field", "response_format"),
    ({"stop": ["x"]}, "unsupported_field", "stop"),
    ({"n": 2}, "unsupported_field", "n"),
    ({"frequency_penalty": 0.5}, "unsupported_field", "frequency_penalty"),
    ({"colour": 1}, "unknown_field", "colour"),
    ({"temperature": 3}, "invalid_temperature", "temperature"),
    ({"top_p": 0}, "invalid_top_p", "top_p"),
    ({"max_tokens": 0}, "invalid_max_tokens", "max_tokens"),
    ({"seed": -1}, "invalid_seed", "seed"),
    ({"stream": 1}, "invalid_type", "stream"),
    ({"modalities": ["video"]}, "invalid_modalities", "modalities"),
    ({"modalities": ["text", "audio"]}, "missing_field", "audio.voice"),
    ({**SPOKEN, "audio": {"voice": "alloy", "format": "wav"}}, "unsupported_voice", "audio.voice"),
    ({**SPOKEN, "audio": {"voice": "default", "format": "aac"}}, "unsupported_format", None),
    ({**SPOKEN, "stream": True}, "unsupported_field", "stream"),
    ({**SPOKEN, "trimodal": {"task": "answer"}}, "unsupported_operation", "modalities"),
    ({"trimodal": {"task": "sing"}}, "invalid_task", "trimodal.task"),
    ({"trimodal": {"lang": "fr"}}, "unsupported_language", "trimodal.lang"),
    ({"trimodal": {"steps": 65}}, "invalid_steps", "trimodal.steps"),
    ({"trimodal": {"schedule": "cubic"}}, "invalid_schedule", "trimodal.schedule"),
    ({"trimodal": {"redraws": 9}}, "invalid_redraws", "trimodal.redraws"),
    ({"trimodal": {"step": 5}}, "unknown_field", "trimodal.step"),
    ({"trimodal": 5}, "invalid_type", "trimodal"),
    ({**user([seen(b"x")]), "trimodal": {"task": "complete"}}, "unsupported_operation", None),
    ({**user([heard(b"x")]), "trimodal": {"task": "complete"}}, "unsupported_operation", None),
    ({**user([seen(b"x")]), "trimodal": {"task": "answer"}}, "unsupported_operation", None),
]


@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_request_is_named(base_url: str, stream: bool) -> None:
    with httpx.Client(base_url=base_url, timeout=30) as client:
        for fields, code, param in BAD:
            tree = {"model": "tiny", **user("red"), "stream": stream} | fields
            answer = client.post("/v1/chat/completions", json=tree)
            assert answer.status_code == 400, fields
            error = answer.json()["error"]
            assert (error["code"], error["type"]) == (code, "invalid_request_error"), fields
            assert param is None or error["param"] == param, fields
            assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("answer", [seen(b"x")], "to answer, the message needs text or speech"),
        ("complete", [seen(b"x"), heard(b"x")], "to complete, the message needs text"),
    ],
)
def test_what_a_task_needs_is_named(task: str, content: Any, message: str) -> None:
    body = json.dumps({"model": "tiny", **user(content), "trimodal": {"task": task}}).encode()
    with pytest.raises(ServingError) as caught:
        parse(body, "tiny", ("text",))
    assert str(caught.value) == message


def test_neutral_values_are_no_mistakes(sdk: openai.OpenAI) -> None:
    answer = ask(
        sdk,
        "red",
        n=1,
        logprobs=False,
        response_format={"type": "text"},
        presence_penalty=0,
        tools=[],
        modalities=["text"],
        user="me",
        metadata={},
        stop=None,
    )
    assert answer.choices[0].message.role == "assistant"


@pytest.mark.parametrize("learnt", [(), ("text",)])
def test_a_model_that_learnt_less(
    model: TrimodalModel, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, learnt: Any
) -> None:
    monkeypatch.setattr(model.config, "generates", learnt)
    with serve(Engine(lambda: model)) as server:
        server.wait_until_ready()
        post = httpx.Client(base_url=f"{server.url}/v1", timeout=30).post
        asked = [
            post("/chat/completions", json={"model": "tiny", **user("red"), **SPOKEN}),
            post("/images/generations", json={"model": "tiny", "prompt": "red"}),
            post("/audio/speech", json={"model": "tiny", "input": "red", "voice": "default"}),
        ]
        files = {"file": ("a.wav", b"x")}
        heard = post("/audio/transcriptions", data={"model": "tiny"}, files=files)
        for answer in [*asked, *([] if learnt else [heard])]:
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (400, "unsupported_operation")
            assert error["message"].endswith(f"it generates {'text' if learnt else 'nothing'}")


def test_a_failure_within_a_stream_is_its_last_event(
    scripted: Any, serve: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with serve(Engine(lambda: scripted)) as server:
        server.wait_until_ready()
        scripted.fails_at = 3
        body = {"model": "tiny", **user("red"), "stream": True}
        with httpx.Client(base_url=f"{server.url}/v1", timeout=30) as client:
            answer = client.post("/chat/completions", json=body)
            assert client.post("/chat/completions", json=body).text.endswith("data: [DONE]\n\n")
    last = json.loads(answer.text.split("data: ")[-1])
    assert last["error"]["code"] == "internal"
    assert "secret" not in answer.text
    (record,) = caplog.records
    assert record.getMessage() == f"request {answer.headers['x-request-id']} failed"
    assert "secret" in caplog.text


def test_a_client_that_leaves_a_stream_ends_the_work(
    scripted: Any, serve: Callable[..., Any]
) -> None:
    body = {"model": "tiny", **user("red"), "stream": True, "max_tokens": 64}
    with serve(Engine(lambda: scripted)) as server:
        server.wait_until_ready()
        with httpx.Client(base_url=f"{server.url}/v1", timeout=30) as client:
            with client.stream("POST", "/chat/completions", json=body) as answer:
                next(answer.iter_lines())
                scripted.gate.clear()
            assert client.get("/models").status_code == 200  # the loop has seen the disconnect
            scripted.gate.set()
            for _ in range(3):
                client.post("/embeddings", json={"model": "tiny", "input": "red"})
    assert scripted.steps < 64


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_to_a_model_that_learnt_none_is_refused(
    sdk: openai.OpenAI,
    model: TrimodalModel,
    png: bytes,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
) -> None:
    monkeypatch.setattr(model.config, "answers", False)
    content = [said("red?"), seen(png)]
    with pytest.raises(openai.BadRequestError, match="not trained to answer questions") as caught:
        ask(sdk, content, stream=stream)
    assert (caught.value.code, caught.value.param) == (
        "unsupported_operation",
        "messages[0].content",
    )
    assert ask(sdk, content, extra_body={"trimodal": {"task": "describe"}}).choices
