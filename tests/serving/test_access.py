import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from trimodal.models import TrimodalModel
from trimodal_serving import access as module
from trimodal_serving.access import PREFIXES, SCOPE_OF, Access, scope_of
from trimodal_serving.app import create_app
from trimodal_serving.engine import Engine
from trimodal_serving.errors import ServingError
from trimodal_serving.keys import SCOPES, KeyFile, Limits

Header = tuple[bytes, bytes]
PLAIN = ("api-key", "x-api-key")


def bearer(secret: str, scheme: str = "Bearer") -> Header:
    return (b"authorization", f"{scheme} {secret}".encode("latin-1"))


def plain(secret: str, name: str = "api-key") -> Header:
    return name.encode(), secret.encode("latin-1")


class Keys:
    """A file with a key of every kind."""

    def __init__(self, path: Path) -> None:
        self.file = KeyFile(path)
        past = datetime.now(UTC) - timedelta(seconds=1)
        self.all = self.file.add(tenant="alice", scopes=SCOPES)[1]
        self.embed = self.file.add(tenant="bob", scopes=("embed",))[1]
        self.expired = self.file.add(tenant="alice", scopes=SCOPES, expires=past)[1]
        revoked, self.revoked = self.file.add(tenant="alice", scopes=SCOPES)
        self.file.revoke(revoked.id)
        self.bulk = self.file.add(tenant="carol", scopes=SCOPES, priority="bulk")[1]
        limits = Limits(requests=2)
        self.two = self.file.add(tenant="dora", scopes=SCOPES, limits=limits)[1]

    @property
    def bad(self) -> list[list[Header]]:
        """Headers that open nothing."""
        return [
            [bearer("")],
            [bearer(self.all[:-1])],
            [bearer(self.revoked)],
            [bearer(self.all, "Basic")],
            [(b"authorization", self.all.encode())],
            [bearer(self.all), bearer(self.all)],
            [bearer("none"), bearer(self.all)],
            [bearer("\xff" * 10_000)],
            [plain(self.all, "apikey")],
            [plain(f"Bearer {self.all}")],
            *([plain("\xff" * 10_000, name)] for name in PLAIN),
            *([plain("", name)] for name in PLAIN),
            *([plain(self.all, name)] * 2 for name in PLAIN),
            *([plain(self.revoked, name)] for name in PLAIN),
            *([bearer(self.all), plain(self.embed, name)] for name in PLAIN),
            *([bearer(self.all, "Basic"), plain(self.all, name)] for name in PLAIN),
            [plain(self.all), plain(self.embed, "x-api-key")],
            *self.strangers,
        ]

    @property
    def strangers(self) -> list[list[Header]]:
        """The same, some of each kind, for what takes longer to ask."""
        return [
            [],
            [bearer("none")],
            [bearer(self.expired)],
            *([plain("none", name)] for name in PLAIN),
            *([plain(self.expired, name)] for name in PLAIN),
            [bearer("none"), plain(self.all)],
        ]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture
def access(keys: Keys) -> Access:
    return Access(keys.file)


def refusal(access: Access, path: str, *headers: Header) -> ServingError:
    with pytest.raises(ServingError) as caught:
        access.enter(path, headers)
    return caught.value


def test_a_valid_key_says_who_asks(access: Access, keys: Keys) -> None:
    caller = access.enter("/v1/embeddings", [bearer(keys.all)])
    assert (caller.tenant, caller.priority) == ("alice", "interactive")
    assert access.enter("/v1/embeddings", [bearer(keys.all, "bEaReR")]).tenant == "alice"


def test_no_other_header_opens_anything_but_livez(access: Access, keys: Keys) -> None:
    for path in [*SCOPE_OF, *(prefix + "demo" for prefix in PREFIXES), "/", "/nowhere", "/docs"]:
        for headers in keys.bad:
            error = refusal(access, path, *headers)
            assert error.status == 401
            assert error.headers()["www-authenticate"] == "Bearer"
    assert access.enter("/livez", []).key_id is None


@pytest.mark.parametrize("name", PLAIN)
def test_other_clients_send_keys_in_headers_of_their_own(
    access: Access, keys: Keys, name: str
) -> None:
    assert access.enter("/v1/embeddings", [plain(keys.all, name)]).tenant == "alice"
    thrice = [bearer(keys.embed), *(plain(keys.embed, one) for one in PLAIN)]
    assert access.enter("/v1/embeddings", thrice).tenant == "bob", "they all say the same"
    expired = refusal(access, "/v1/embeddings", plain(keys.expired, name))
    assert expired.code == "expired_api_key"
    two = refusal(access, "/v1/embeddings", bearer(keys.all), plain(keys.embed, name))
    assert two.code == "invalid_api_key"


def test_a_key_opens_what_its_scopes_say(access: Access, keys: Keys) -> None:
    key = bearer(keys.embed)
    for path in ("/readyz", "/v1/models", "/v1/models/demo", "/v1/embeddings"):
        assert access.enter(path, [key]).tenant == "bob"
    for path in ("/metrics", "/v1/chat/completions", "/v1/images/generations"):
        assert (refusal(access, path, key).status, refusal(access, path, key).code) == (
            403,
            "missing_scope",
        )


@pytest.mark.parametrize(
    "path",
    [
        "//v1/embeddings",
        "/v1/embeddings/",
        "/V1/embeddings",
        "/v1//embeddings",
        "/v1/../metrics",
        "/livez/../v1/embeddings",
        "/livez/",
        "/livez?",
        "/livez;/v1/embeddings",
        "",
        "http://host/livez",
    ],
)
def test_a_path_that_is_no_route_needs_every_scope(access: Access, keys: Keys, path: str) -> None:
    assert scope_of(path) == frozenset(SCOPES)
    assert refusal(access, path).status == 401
    assert refusal(access, path, bearer(keys.embed)).status == 403


def test_a_path_without_a_route_is_no_matter_of_scopes(access: Access, keys: Keys) -> None:
    for headers in keys.bad:
        with pytest.raises(ServingError) as caught:
            access.enter("/nowhere", headers, lambda: False)
        assert caught.value.status == 401
    caller = access.enter("/nowhere", [bearer(keys.embed)], lambda: False)
    assert caller.tenant == "bob", "who then hears that there is nothing"


def test_priorities(access: Access, keys: Keys) -> None:
    def priority(secret: str, *values: bytes) -> str:
        headers = [bearer(secret), *((b"x-priority", value) for value in values)]
        return access.enter("/v1/embeddings", headers).priority

    assert priority(keys.all, b"bulk") == priority(keys.bulk) == "bulk"
    assert priority(keys.bulk, b"interactive") == "bulk"
    assert priority(keys.all, b"interactive") == "interactive"
    with pytest.raises(ServingError, match="x-priority must be one of"):
        priority(keys.all, b"first")
    assert Access().enter("/v1/embeddings", [(b"x-priority", b"bulk")]).priority == "bulk"


def test_quotas_are_those_of_the_key(access: Access, keys: Keys) -> None:
    for _ in range(2):
        access.leave(access.enter("/v1/embeddings", [bearer(keys.two)]))
    assert refusal(access, "/v1/embeddings", bearer(keys.two)).code == "rate_limit"
    access.enter("/v1/embeddings", [bearer(keys.all)])


def test_changes_of_the_file_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    file = KeyFile(tmp_path / "keys.json")
    key, secret = file.add(tenant="alice", scopes=("embed",))
    access = Access(file)
    _, later = file.add(tenant="bob", scopes=("embed",))
    assert access.enter("/readyz", [bearer(later)]).tenant == "bob"
    file.path.write_text("broken, and longer than before" * 100)
    assert access.enter("/readyz", [bearer(secret)]).tenant == "alice"
    file.path.unlink()
    assert access.enter("/readyz", [bearer(secret)]).tenant == "alice"
    file.add(tenant="carol", scopes=("embed",))
    assert refusal(access, "/readyz", bearer(secret)).code == "invalid_api_key"
    assert key.id not in file.load()


def test_a_request_leaves_what_it_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    file = KeyFile(tmp_path / "keys.json")
    key, secret = file.add(tenant="alice", scopes=("embed",), limits=Limits(in_flight=1))
    access = Access(file)
    before = access.enter("/readyz", [bearer(secret)])
    text = file.path.read_text()
    file.path.write_text(text.replace('"in_flight": 1', '"in_flight": 2'))
    inside = access.enter("/readyz", [bearer(secret)])
    access.leave(before)  # of another quota than the one that holds now
    second = access.enter("/readyz", [bearer(secret)])
    assert inside.key_id == second.key_id == key.id
    assert refusal(access, "/readyz", bearer(secret)).code == "too_many_in_flight"
    access.leave(inside)
    access.enter("/readyz", [bearer(secret)])


# every route of the real server


@pytest.fixture(scope="module")
def guarded(model: TrimodalModel, keys: Keys, serve: Any) -> Iterator[Any]:
    with serve(Engine(lambda: model), access=Access(keys.file)) as server:
        yield server


def routes(model: TrimodalModel) -> set[tuple[str, str]]:
    app = create_app({"tiny": Engine(lambda: model)}, 1000).app
    assert isinstance(app, FastAPI)
    found = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert len(found) == len(app.routes), "one method each"
    return found


def test_every_route_is_closed_without_a_key(
    guarded: Any, keys: Keys, model: TrimodalModel
) -> None:
    reached = []
    with httpx.Client(base_url=guarded.url, timeout=30) as client:
        while client.get("/livez").status_code != 200:
            time.sleep(0.01)
        for _, path in sorted(routes(model)):
            actual = re.sub(r"{[a-z:]+}", "tiny", path)
            for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE"):
                for headers in keys.strangers:
                    raw: Any = [(b"host", b"a/?x="), *headers]
                    response = client.request(method, actual, headers=raw)
                    if response.status_code != 401:
                        reached.append((method, path))
    assert {path for _, path in reached} == {"/livez"}


def test_every_route_has_a_scope(model: TrimodalModel) -> None:
    named = {path for _, path in routes(model) if path.startswith(tuple(PREFIXES))}
    assert {path for _, path in routes(model)} - {"/livez"} - named == set(SCOPE_OF)
    assert all(any(path.startswith(prefix) for path in named) for prefix in PREFIXES)


def test_a_key_reaches_the_routes(guarded: Any, keys: Keys) -> None:
    guarded.wait_until_ready(keys.all)
    headers = {"authorization": f"Bearer {keys.embed}", "content-type": "application/json"}
    body = json.dumps({"model": "tiny", "input": "red"})
    with httpx.Client(base_url=guarded.url, headers=headers, timeout=30) as client:
        assert client.post("/v1/embeddings", content=body).status_code == 200
        assert client.get("/v1/models/tiny").status_code == 200
        assert client.post("/v1/chat/completions", content=body).status_code == 403
        assert client.get("/metrics").status_code == 403
        del client.headers["authorization"]
        for name in PLAIN:
            answer = client.post("/v1/embeddings", content=body, headers={name: keys.embed})
            assert answer.status_code == 200
        series = client.get("/metrics", headers={"authorization": f"Bearer {keys.all}"}).text
    assert 'trimodal_tenant_requests_total{tenant="bob"}' in series
    assert 'trimodal_rejected_total{reason="missing_scope"}' in series
    assert keys.embed not in series


def test_a_key_hears_that_there_is_nothing_at_a_path(guarded: Any, keys: Keys) -> None:
    guarded.wait_until_ready(keys.all)
    paths = ("/v1/embedding", "/v1/embeddings/", "/v1//metrics", "/docs", "/v1/indexes/a/b/c")
    with httpx.Client(base_url=guarded.url, timeout=30) as client:
        for path in paths:
            for secret in (keys.embed, keys.all):
                headers = {"authorization": f"Bearer {secret}"}
                answer = client.post(path, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
            assert client.post(path).status_code == 401
            assert client.post(path, headers={"api-key": keys.expired}).status_code == 401


def test_a_route_that_somebody_forgot_is_closed(
    guarded: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.wait_until_ready(keys.all)
    monkeypatch.delitem(SCOPE_OF, "/v1/similarity")
    monkeypatch.delitem(SCOPE_OF, "/info")
    with httpx.Client(base_url=guarded.url, timeout=30) as client:
        for path in ("/v1/similarity", "/info"):
            for method in ("GET", "POST", "PUT"):
                answer = client.request(method, path, headers={"api-key": keys.embed})
                assert (answer.status_code, answer.json()["error"]["code"]) == (
                    403,
                    "missing_scope",
                )
            assert client.post(path, headers={"api-key": keys.all}).status_code not in (401, 403)
