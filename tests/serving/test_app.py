import base64
import io
import json
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from PIL import Image

from trimodal.models import TrimodalModel, cut
from trimodal.testing import assert_close
from trimodal_serving.deadline import Deadline
from trimodal_serving.engine import Engine

Post = Callable[..., httpx.Response]
FIELDS = {"message", "type", "param", "code"}


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, timeout=30) as client:
        yield client


@pytest.fixture
def post(client: httpx.Client) -> Post:
    def post(**fields: Any) -> httpx.Response:
        return client.post("/v1/embeddings", json={"model": "tiny", **fields})

    return post


def vectors(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.array([item["embedding"] for item in response.json()["data"]], dtype=np.float32)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error of an answer, whose form is checked."""
    assert not response.is_success
    assert response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == FIELDS
    assert error["message"]
    assert "Traceback" not in response.text
    assert "0x" not in response.text
    return error


# what is answered


def test_texts(post: Post, model: TrimodalModel) -> None:
    texts = ["a red square", "红色", "data:image/png;base64,AAAA"]
    response = post(input=texts)
    assert_close(vectors(response), model.embed(text=texts)["text"], "served-vs-offline")
    tree = response.json()
    assert [item["index"] for item in tree["data"]] == [0, 1, 2]
    assert {item["modality"] for item in tree["data"]} == {"text"}
    assert_close(
        vectors(post(input=texts[0]))[0],
        model.embed(text=texts[:1])["text"][0],
        "served-vs-offline",
    )


@pytest.mark.parametrize("modality", ["audio", "speech"])
def test_media_as_strings(
    post: Post, model: TrimodalModel, png: bytes, wav: bytes, modality: str
) -> None:
    seen = post(input=[f"data:image/png;base64,{encoded(png)}", encoded(png)], modality="image")
    assert_close(vectors(seen), model.embed(image=[png, png])["image"], "served-vs-offline")
    heard = post(input=f"data:audio/wav;base64,{encoded(wav)}", modality=modality)
    assert_close(vectors(heard), model.embed(speech=[wav])["speech"], "served-vs-offline")
    assert heard.json()["data"][0]["modality"] == "audio"


def test_objects_and_content_lists(
    post: Post, model: TrimodalModel, png: bytes, wav: bytes
) -> None:
    image, audio = f"data:image/png;base64,{encoded(png)}", encoded(wav)
    response = post(
        input=[
            {"text": "red"},
            {"image": {"url": image}},
            {"audio": {"bytes": audio}},
            {
                "content": [
                    {"type": "text", "text": "red"},
                    {"type": "image_url", "image_url": {"url": image}},
                    {"type": "input_audio", "input_audio": {"data": audio, "format": "wav"}},
                ]
            },
        ]
    )
    expected = model.embed(
        image=[None, png, None, png], text=["red", None, None, "red"], speech=[None, None, wav, wav]
    )
    assert_close(vectors(response), expected["fused"], "served-vs-offline")
    labels = [item["modality"] for item in response.json()["data"]]
    assert labels == ["text", "image", "audio", "fused"]
    usage = response.json()["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"]
    assert usage["prompt_tokens"] == sum(usage["prompt_tokens_details"].values())
    assert all(usage["prompt_tokens_details"].values())


def test_dimensions_are_cut_and_normalised(post: Post, model: TrimodalModel) -> None:
    short = vectors(post(input=["red", "blue"], dimensions=8))
    expected = cut(model.embed(text=["red", "blue"])["text"], 8)
    assert_close(short, expected, "served-vs-offline")
    assert_close(np.linalg.norm(short, axis=1), [1.0, 1.0], "unit-norm")


def test_long_lists_keep_their_order(post: Post, model: TrimodalModel) -> None:
    texts = [f"{i} red {'square ' * (i % 7)}" for i in range(300)]
    assert_close(vectors(post(input=texts)), model.embed(text=texts)["text"], "served-vs-offline")


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_openai_client(base_url: str, model: TrimodalModel, encoding: Any) -> None:
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key="none") as client:
        answer = client.embeddings.create(
            model="tiny", input=["red", "blue"], encoding_format=encoding, dimensions=8, user="me"
        )
        default = client.embeddings.create(model="tiny", input="red")
        names = [card.id for card in client.models.list()]
        card = client.models.retrieve("tiny")
    raw = [item.embedding for item in answer.data]
    rows = [
        np.frombuffer(base64.b64decode(row), "<f4") if isinstance(row, str) else row for row in raw
    ]
    expected = model.embed(text=["red", "blue"])["text"]
    assert_close(np.array(rows), cut(expected, 8), "served-vs-offline")
    assert_close(np.array(default.data[0].embedding), expected[0], "served-vs-offline")
    assert names == ["tiny"]
    assert card.id == "tiny"


def test_openai_client_shows_our_errors(base_url: str) -> None:
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key="none") as client:
        with pytest.raises(openai.NotFoundError, match="this server has `tiny`"):
            client.embeddings.create(model="text-embedding-3-small", input="red")
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            client.embeddings.create(model="tiny", input=[[1, 2, 3]])


def test_models(client: httpx.Client) -> None:
    (card,) = client.get("/v1/models").json()["data"]
    assert card["id"] == "tiny"
    assert card["object"] == "model"
    embedding = ["embed.text", "embed.image", "embed.audio"]
    assert card["capabilities"] == [*embedding, "image", "chat", "transcribe", "speech", "answer"]
    assert card["generates"] == ["image", "text", "speech", "answers"]
    assert card["dimensions"] == [8, 16]
    assert client.get("/v1/models/tiny").json() == card


def test_health(client: httpx.Client) -> None:
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200


# what is refused, and that the server is as good as before


def picture(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds one row of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(3 * width)))


def animated(container: str) -> bytes:
    stream = io.BytesIO()
    red, blue = (Image.new("RGB", (5, 4), colour) for colour in ("red", "blue"))
    red.save(stream, container, save_all=True, append_images=[blue])
    return stream.getvalue()


def sound(samples: np.ndarray, rate: int = 16_000, subtype: str = "PCM_16") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", subtype=subtype)
    return stream.getvalue()


ZEROS = np.zeros(1600)
BAD_MEDIA: dict[str, tuple[str, bytes, str]] = {
    "truncated-jpeg": ("image", picture("JPEG")[:-200], "invalid_image"),
    "truncated-png": ("image", picture("PNG")[:-200], "invalid_image"),
    "gif": ("image", picture("GIF"), "invalid_image"),
    "animated-png": ("image", animated("PNG"), "invalid_image"),
    "animated-webp": ("image", animated("WEBP"), "invalid_image"),
    "svg": ("image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "invalid_image"),
    "wav-as-image": ("image", sound(ZEROS), "invalid_image"),
    "100-megapixels": ("image", png_header(10_000, 10_000), "image_too_large_pixels"),
    "900-megapixels": ("image", png_header(30_000, 30_000), "image_too_large_pixels"),
    "no-samples": ("audio", sound(ZEROS[:0]), "invalid_audio"),
    "eight-channels": ("audio", sound(np.zeros((1600, 8))), "invalid_audio"),
    "not-a-number": ("audio", sound(ZEROS * np.nan, subtype="FLOAT"), "invalid_audio"),
    "too-loud": ("audio", sound(ZEROS + 1e30, subtype="FLOAT"), "invalid_audio"),
    "too-long": ("audio", sound(np.zeros(5 * 16_000)), "audio_too_long"),
    "forged-rate": ("audio", sound(ZEROS, rate=655_000), "invalid_audio"),
    "adpcm": ("audio", sound(ZEROS, subtype="IMA_ADPCM"), "invalid_audio"),
    "truncated-header": ("audio", sound(ZEROS)[:30], "invalid_audio"),
    "png-as-audio": ("audio", picture("PNG"), "invalid_audio"),
}


@pytest.mark.parametrize(("kind", "data", "code"), BAD_MEDIA.values(), ids=BAD_MEDIA)
def test_a_bad_medium_is_named_and_the_next_request_works(
    post: Post, png: bytes, wav: bytes, kind: str, data: bytes, code: str
) -> None:
    good = {"image": encoded(png), "audio": encoded(wav)}
    before = vectors(post(input=[good]))
    refused = post(input=[good, {kind: encoded(data)}, "red"])
    error = error_of(refused)
    assert (refused.status_code, error["code"], error["param"]) == (400, code, "input[1]")
    assert error["type"] == "invalid_request_error"
    assert_close(vectors(post(input=[good])), before, "served-vs-offline")


@pytest.mark.parametrize("tenth", range(10))
def test_a_cut_jpeg_is_refused_wherever_it_was_cut(post: Post, tenth: int) -> None:
    whole = picture("JPEG")
    refused = post(input=[encoded(whole[: len(whole) * tenth // 10] or b"x")], modality="image")
    assert (refused.status_code, error_of(refused)["code"]) == (400, "invalid_image")
    assert len(vectors(post(input=[encoded(whole)], modality="image"))) == 1


@pytest.mark.parametrize("rate", [8_000, 44_100, 47_999, 192_000])
def test_speech_of_any_rate_is_taken(post: Post, rate: int) -> None:
    assert (
        len(vectors(post(input=[encoded(sound(np.ones(rate // 4), rate))], modality="audio"))) == 1
    )


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"input": []}, 400, "empty_input"),
        ({"input": ""}, 400, "empty_input"),
        ({"input": ["a", ""]}, 400, "empty_input"),
        ({"input": [[1, 2]]}, 400, "token_ids_not_supported"),
        ({"input": ["http://127.0.0.1:9/x.png"], "modality": "image"}, 400, "url_not_allowed"),
        ({"input": ["file:///etc/passwd"], "modality": "audio"}, 400, "url_not_allowed"),
        ({"input": [{"image": "%%%"}]}, 400, "invalid_image"),
        ({"input": "word " * 1000}, 400, "context_length_exceeded"),
        ({"input": "red", "dimensions": 5}, 400, "invalid_dimensions"),
        ({"input": "red", "colour": 1}, 400, "unknown_field"),
        ({"input": ["red"] * 2049}, 413, "too_many_inputs"),
        ({"input": ["AAAA"] * 65, "modality": "image"}, 413, "too_many_inputs"),
        ({"input": "red", "model": "other"}, 404, "model_not_found"),
        ({}, 400, "missing_field"),
    ],
)
def test_a_bad_request_is_named_and_the_next_one_works(
    post: Post, fields: dict[str, Any], status: int, code: str
) -> None:
    refused = post(**fields)
    assert (refused.status_code, error_of(refused)["code"]) == (status, code)
    assert refused.headers["x-should-retry"] == "false"
    assert len(vectors(post(input="red"))) == 1


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "bad_json"),
        (b"[" * 100_000, "application/json; charset=utf-8", 400, "bad_json"),
        (b'{"model": "tiny", "input": "red"}', "text/plain", 415, "unsupported_content_type"),
        (b"model=tiny", "application/x-www-form-urlencoded", 415, "unsupported_content_type"),
    ],
)
def test_other_bodies(client: httpx.Client, body: bytes, kind: str, status: int, code: str) -> None:
    refused = client.post("/v1/embeddings", content=body, headers={"content-type": kind})
    assert (refused.status_code, error_of(refused)["code"]) == (status, code)


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
def test_a_large_body_is_refused_and_the_next_request_works(
    client: httpx.Client, post: Post, chunked: bool
) -> None:
    body = json.dumps({"model": "tiny", "input": "x" * (3 << 20)}).encode()
    pieces = (body[i : i + 65_536] for i in range(0, len(body), 65_536))
    refused = client.post(
        "/v1/embeddings",
        content=pieces if chunked else body,
        headers={"content-type": "application/json"},
    )
    assert (refused.status_code, error_of(refused)["code"]) == (413, "body_too_large")
    assert len(vectors(post(input="red"))) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/playground", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("POST", "/openapi.json", 405, "method_not_allowed"),
        ("GET", "/v2/models/other", 404, "model_not_found"),
        ("GET", "/v2/models/other/ready", 404, "model_not_found"),
        ("GET", "/v1/indexes/nothing", 404, "index_not_found"),
        ("POST", "/v1/embeddings/", 404, "not_found"),
        ("GET", "/v1/embeddings", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/embeddings", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/other", 404, "model_not_found"),
    ],
)
def test_other_routes(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    refused = client.request(method, httpx.URL(path=path))
    assert (refused.status_code, error_of(refused)["code"]) == (status, code)
    assert ("allow" in refused.headers) == (status == 405)


# what happens when the model does not do as it should


@pytest.fixture
def troubled(scripted: Any, serve: Callable[..., Any]) -> Iterator[httpx.Client]:
    """A server of its own, whose model the test scripts."""
    with serve(Engine(lambda: scripted)) as server:
        server.wait_until_ready()
        scripted.entered.clear()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            yield client


def ask(client: httpx.Client, *texts: str) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": "tiny", "input": list(texts)})


@pytest.mark.parametrize(
    ("fault", "code"), [("raises", "internal"), ("broken", "nonfinite_output")]
)
def test_a_failure_of_the_model_is_logged_and_not_sent_again(
    troubled: httpx.Client, scripted: Any, fault: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    setattr(scripted, fault, lambda sample: sample.id == "input[1]")
    refused = ask(troubled, "red", "blue", "white")
    error = error_of(refused)
    assert (refused.status_code, error["code"], error["param"]) == (500, code, "input[1]")
    assert refused.headers["x-should-retry"] == "false"
    assert "secret" not in refused.text
    (record,) = caplog.records
    assert record.getMessage() == f"request {refused.headers['x-request-id']} failed"
    assert ("secret" in caplog.text) == (fault == "raises")
    assert ask(troubled, "red").status_code == 200


def test_what_fails_every_time_is_sent_once(troubled: httpx.Client, scripted: Any) -> None:
    scripted.raises = lambda _: True
    with openai.OpenAI(base_url=f"{troubled.base_url}/v1", api_key="none") as client:
        assert client.max_retries > 0
        with pytest.raises(openai.InternalServerError):
            client.embeddings.create(model="tiny", input="red")
    series = troubled.get("/metrics").text
    assert 'trimodal_requests_total{code="500",route="/v1/embeddings"} 1.0' in series


def test_a_failure_of_the_processor_is_logged(
    client: httpx.Client,
    model: TrimodalModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert model.processor is not None
    monkeypatch.setattr(model.processor.text, "medium", lambda _: 1 / 0)
    refused = client.post(
        "/v1/embeddings",
        json={"model": "tiny", "input": "red"},
        headers={"x-request-id": "my-request.1"},
    )
    assert (refused.status_code, error_of(refused)["code"]) == (500, "internal")
    (record,) = caplog.records
    assert record.getMessage() == "request my-request.1 failed"
    assert "ZeroDivisionError" in caplog.text


def test_a_full_server_says_when_to_come_back(
    scripted: Any, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimodal_serving.engine.QUEUED_BATCHES", 1)
    with serve(Engine(lambda: scripted, token_budget=1)) as server:
        server.wait_until_ready()
        scripted.entered.clear()
        scripted.gate.clear()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            answers: list[httpx.Response] = []
            first = threading.Thread(target=lambda: answers.append(ask(client, "red")))
            first.start()
            assert scripted.entered.wait(20)
            refused = ask(client, "blue")
            assert client.get("/livez").status_code == 200
            scripted.gate.set()
            first.join(20)
            assert (refused.status_code, error_of(refused)["code"]) == (429, "queue_full")
            assert int(refused.headers["retry-after"]) >= 1
            assert [answer.status_code for answer in answers] == [200]
            assert ask(client, "blue").status_code == 200


def test_work_for_a_client_that_left_is_dropped(troubled: httpx.Client, scripted: Any) -> None:
    scripted.gate.clear()
    answers: list[httpx.Response] = []
    first = threading.Thread(target=lambda: answers.append(ask(troubled, "red")))
    first.start()
    assert scripted.entered.wait(20)
    with pytest.raises(httpx.ReadTimeout):
        troubled.post("/v1/embeddings", json={"model": "tiny", "input": ["a"] * 50}, timeout=0.3)
    assert troubled.get("/livez").status_code == 200  # the loop has seen the disconnect by now
    scripted.gate.set()
    first.join(20)
    assert ask(troubled, "blue").status_code == 200
    assert [len(batch) for batch in scripted.batches] == [1, 1, 1]  # warm-up, red, blue


def test_a_request_that_takes_too_long_is_given_up(
    scripted: Any, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(Engine(lambda: scripted), request_seconds=600.0) as server:
        server.wait_until_ready()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            scripted.gate.clear()
            with monkeypatch.context() as hurry:
                hurry.setattr(Deadline, "left", 0.05)
                # whether the first has begun to be computed or not, the others wait behind it
                refused = [ask(client, "red"), ask(client, "blue", "white")]
                tree = {"model": "tiny", "messages": [{"role": "user", "content": "red"}]}
                path = "/v1/chat/completions"
                refused.append(client.post(path, json=tree | {"stream": True}))
            scripted.gate.set()
            assert ask(client, "green").status_code == 200
            series = client.get("/metrics").text
    for answer in refused:
        error = error_of(answer)
        assert (answer.status_code, error["code"]) == (504, "request_timeout")
        assert error["type"] == "timeout_error"
        assert answer.headers["x-should-retry"] == "false"
    assert all(len(batch) == 1 for batch in scripted.batches), "blue and white are not computed"
    assert 'trimodal_rejected_total{reason="request_timeout"} 3.0' in series


def test_an_error_within_a_stream_is_counted(troubled: httpx.Client, scripted: Any) -> None:
    scripted.fails_at = 3
    messages = [{"role": "user", "content": "red"}]
    tree = {"model": "tiny", "messages": messages, "stream": True}
    assert '"code": "internal"' in troubled.post("/v1/chat/completions", json=tree).text
    series = ""
    for _ in range(100):  # it is written down a moment after its last event
        series = series if 'reason="internal"' in series else troubled.get("/metrics").text
    assert 'trimodal_rejected_total{reason="internal"} 1.0' in series
    assert 'trimodal_requests_total{code="200",route="/v1/chat/completions"} 1.0' in series


def test_while_the_model_is_loaded(model: TrimodalModel, serve: Callable[..., Any]) -> None:
    gate = threading.Event()

    def load() -> TrimodalModel:
        gate.wait(20)
        return model

    with serve(Engine(load)) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        assert client.get("/livez").status_code == 200
        paths = ("/readyz", "/health", "/v1/models", "/models")
        for refused in (*map(client.get, paths), ask(client, "red")):
            assert (refused.status_code, error_of(refused)["code"]) == (503, "loading")
            assert refused.headers["retry-after"] == "1"
        gate.set()
        server.wait_until_ready()
        assert ask(client, "red").status_code == 200
