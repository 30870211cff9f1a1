"""Who may use a server without keys: not a page of another site, by whatever name it comes."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from trimodal.models import TrimodalModel
from trimodal_serving.access import Access
from trimodal_serving.engine import Engine
from trimodal_serving.errors import ServingError
from trimodal_serving.origins import check_origin, check_site, is_loopback


def heads(host: str, *origins: str) -> list[tuple[bytes, bytes]]:
    pairs = [("host", host), *(("origin", origin) for origin in origins)]
    return [(name.encode(), value.encode()) for name, value in pairs]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "10.0.0.1", "example.org", "localhost.evil.org"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST"])
def test_the_servers_own_page_is_let_in(host: str) -> None:
    check_origin(heads(host))
    check_origin(heads(host, f"http://{host}"))


@pytest.mark.parametrize(
    "host",
    ["evil.org", "evil.org:8000", "10.0.0.1", "localhost:8000@evil.org", "127.0.0.1.evil.org"],
)
def test_another_name_is_refused(host: str) -> None:
    with pytest.raises(ServingError) as caught:
        check_origin(heads(host))
    assert (caught.value.status, caught.value.code) == (403, "foreign_host")


@pytest.mark.parametrize(
    "origins",
    [
        ("http://evil.org",),
        ("http://localhost:8001",),
        ("null",),
        ("http://localhost:8000", "http://evil.org"),
    ],
)
def test_the_page_of_another_site_is_refused(origins: tuple[str, ...]) -> None:
    with pytest.raises(ServingError) as caught:
        check_origin(heads("localhost:8000", *origins))
    assert (caught.value.status, caught.value.code) == (403, "foreign_origin")


@pytest.mark.parametrize("site", [b"cross-site", b"same-site"])
def test_a_browser_says_whose_page_it_is(site: bytes) -> None:
    sent = [(b"sec-fetch-site", site), (b"sec-fetch-mode", b"no-cors")]
    with pytest.raises(ServingError) as caught:
        check_site("/v1/embeddings", sent)
    assert (caught.value.status, caught.value.code) == (403, "foreign_origin")
    linked = [(b"sec-fetch-site", site), (b"sec-fetch-mode", b"navigate")]
    check_site("/", linked)
    with pytest.raises(ServingError):
        check_site("/v1/models", linked)
    for own in ([], [(b"sec-fetch-site", b"same-origin")], [(b"sec-fetch-site", b"none")]):
        check_site("/v1/embeddings", own)


def test_through_the_server(base_url: str) -> None:
    refused = httpx.get(f"{base_url}/v1/models", headers={"host": "evil.org"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "foreign_host")
    refused = httpx.get(f"{base_url}/v1/models", headers={"origin": "http://evil.org"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "foreign_origin")
    assert httpx.get(f"{base_url}/livez", headers={"host": "10.0.0.1"}).status_code == 200
    assert httpx.get(f"{base_url}/v1/models", headers={"origin": base_url}).status_code == 200


def test_who_lets_everybody_in_lets_them_in_by_any_name(
    model: TrimodalModel, serve: Callable[..., Any]
) -> None:
    with serve(Engine(lambda: model), access=Access(anonymous=True)) as server:
        server.wait_until_ready()
        headers = {"host": "models.example.org", "origin": "https://example.org"}
        assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 200
