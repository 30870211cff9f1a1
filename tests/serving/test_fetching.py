import asyncio
import base64
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from trimodal.batch import Modality
from trimodal.models import TrimodalModel
from trimodal_serving.engine import Engine
from trimodal_serving.errors import ServingError
from trimodal_serving.fetcher import Fetcher
from trimodal_serving.fetching import Fetching
from trimodal_serving.hosts import Hosts
from trimodal_serving.inputs import Input
from trimodal_serving.media import LinkedMedium, RawMedium
from trimodal_serving.orders import Order

V, T, S = Modality.VISION, Modality.TEXT, Modality.SPEECH
SEEN, HEARD = LinkedMedium(V, "https://a.org/a.png"), LinkedMedium(S, "https://a.org/a.wav")
ITEM = Input("input[1]", {T: "red", V: SEEN})


class Remembering:
    """Stands for a service, and keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[Input] = []

    async def embed(self, inputs: Sequence[Input]) -> Any:
        self.given += inputs

    async def generate(self, order: Order) -> Any:
        self.given.append(order.item)

    async def stream(self, order: Order) -> Any:
        self.given.append(order.item)
        yield "piece"

    async def encode(self, item: Input) -> Any:
        self.given.append(item)


class Known:
    """Stands for a fetcher, whose files are the addresses."""

    async def media(self, linked: Sequence[tuple[str, LinkedMedium]]) -> list[RawMedium]:
        return [RawMedium(one.modality, f"{where} {one.url}".encode()) for where, one in linked]


async def use(service: Fetching, name: str) -> None:
    order = Order(item=ITEM, to=T)
    if name == "stream":
        assert [piece async for piece in service.stream(order)] == ["piece"]
    elif name == "embed":
        await service.embed([Input("input[0]", {T: "red"}), ITEM])
    else:
        await getattr(service, name)(order if name == "generate" else ITEM)


WAYS = ["embed", "generate", "stream", "encode"]


@pytest.mark.parametrize("name", WAYS)
def test_files_stand_in_the_place_of_addresses(name: str) -> None:
    inner: Any = Remembering()
    fetcher: Any = Known()
    asyncio.run(use(Fetching(inner, fetcher), name))
    file = RawMedium(V, b"input[1] https://a.org/a.png")
    assert inner.given[-1] == Input("input[1]", {T: "red", V: file})
    assert ITEM.media[V] is SEEN


@pytest.mark.parametrize("name", WAYS)
def test_without_a_fetcher_addresses_are_refused(name: str) -> None:
    inner: Any = Remembering()
    with pytest.raises(ServingError, match="which this server does not fetch") as caught:
        asyncio.run(use(Fetching(inner, None), name))
    assert (caught.value.code, caught.value.param) == ("url_not_allowed", "input[1]")
    assert inner.given == []


def test_several_media_of_an_input_are_fetched() -> None:
    inner: Any = Remembering()
    fetcher: Any = Known()
    inputs = [Input("input[0]", {V: SEEN, S: HEARD}), Input("input[1]", {S: HEARD})]
    asyncio.run(Fetching(inner, fetcher).embed(inputs))
    assert [list(item.media.values()) for item in inner.given] == [
        [
            RawMedium(V, b"input[0] https://a.org/a.png"),
            RawMedium(S, b"input[0] https://a.org/a.wav"),
        ],
        [RawMedium(S, b"input[1] https://a.org/a.wav")],
    ]


@pytest.fixture(scope="module")
def site(png: bytes, wav: bytes) -> Iterator[str]:
    """The address of a host with a picture, an utterance, something large and something else."""
    files = {"/a.png": png, "/a.wav": wav, "/large": bytes(1 << 20), "/other": b"GIF89a" * 9}

    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(files[self.path])

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as host:
        thread = threading.Thread(target=host.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{host.server_address[1]}"
        host.shutdown()
        thread.join(20)


@pytest.fixture(scope="module")
def client(site: str, model: TrimodalModel, serve: Callable[..., Any]) -> Iterator[httpx.Client]:
    """Of a server that fetches from that host."""
    fetcher = Fetcher(Hosts([site.removeprefix("http://")]))
    with (
        serve(Engine(lambda: model), fetcher=fetcher) as server,
        httpx.Client(base_url=server.wait_until_ready().url, timeout=60) as client,
    ):
        yield client


def shapes(image: str, audio: str) -> dict[str, tuple[str, Any]]:
    """Where requests may hold media."""
    parts = [
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "audio_url", "audio_url": {"url": audio}},
    ]
    user = {"role": "user", "content": parts}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [image]}
    inputs = {"inputs": [{"content": parts}]}
    return {
        "openai": ("/v1/embeddings", {"input": [{"image": image}, {"audio": {"url": audio}}]}),
        "strings": ("/v1/embeddings", {"input": [image], "modality": "image"}),
        "messages": ("/v1/embeddings", {"messages": [user]}),
        "cohere": ("/v2/embed", {"images": [image]}),
        "cohere-inputs": ("/v2/embed", inputs),
        "voyage": ("/v1/multimodalembeddings", inputs),
        "tokens": ("/v1/tokens/encode", {"modality": "audio", "data": audio}),
        "kserve": ("/v2/models/tiny/infer", {"inputs": [tensor]}),
        "similarity": ("/v1/similarity", {"queries": [{"image": image}], "documents": "red"}),
        "chat": ("/v1/chat/completions", {"messages": [user], "max_tokens": 2}),
    }


def ask(client: httpx.Client, path: str, tree: Any) -> httpx.Response:
    named = tree if path.startswith("/v2/models") else {"model": "tiny", **tree}
    return client.post(path, json=named)


@pytest.mark.parametrize("shape", shapes("", ""))
def test_what_is_fetched_counts_as_what_is_sent(
    client: httpx.Client, site: str, png: bytes, wav: bytes, shape: str
) -> None:
    image = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    audio = f"data:audio/wav;base64,{base64.b64encode(wav).decode()}"
    sent = ask(client, *shapes(image, audio)[shape])
    fetched = ask(client, *shapes(f"{site}/a.png", f"{site}/a.wav")[shape])
    assert (sent.status_code, fetched.status_code) == (200, 200), fetched.text
    ours, theirs = sent.json(), fetched.json()
    for key in ("data", "embeddings", "codes", "outputs", "similarities", "usage"):
        assert ours.get(key) == theirs.get(key)


@pytest.mark.parametrize("shape", shapes("", ""))
def test_it_is_off_unless_hosts_are_named(base_url: str, site: str, shape: str) -> None:
    with httpx.Client(base_url=base_url, timeout=60) as client:
        answer = ask(client, *shapes(f"{site}/a.png", f"{site}/a.wav")[shape])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "url_not_allowed")


def test_what_is_fetched_is_judged_by_its_content(client: httpx.Client, site: str) -> None:
    for path, status, code in (
        ("/other", 400, "invalid_image"),
        ("/a.wav", 400, "invalid_image"),
        ("/large", 413, "body_too_large"),
    ):
        tree = {"input": ["red", {"text": "red", "image": f"{site}{path}"}]}
        error = ask(client, "/v1/embeddings", tree)
        assert (error.status_code, error.json()["error"]["code"]) == (status, code)
        assert error.json()["error"]["param"] == "input[1]"


def test_a_stream_is_refused_before_it_begins(client: httpx.Client, site: str) -> None:
    path, tree = shapes(f"{site}/other", f"{site}/a.wav")["chat"]
    answer = ask(client, path, tree | {"stream": True})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_image")
    path, tree = shapes("http://elsewhere.org/a.png", f"{site}/a.wav")["chat"]
    answer = ask(client, path, tree | {"stream": True})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "url_not_allowed")
