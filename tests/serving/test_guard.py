import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from trimodal_serving import guard as module
from trimodal_serving.access import Access
from trimodal_serving.caller import Caller, Usage, current
from trimodal_serving.errors import ServingError, too_late
from trimodal_serving.guard import App, Guard, Message, Receive, Send
from trimodal_serving.keys import Limits
from trimodal_serving.ledger import Ledger, Visit
from trimodal_serving.metrics import Metrics
from trimodal_serving.quotas import Quota

LIMIT = 1000


class Exchange:
    """One request, told as ASGI messages, and what was answered."""

    def __init__(self, *messages: Message, headers: dict[str, str] | None = None) -> None:
        self._messages = list(messages)
        pairs = (headers or {}).items()
        raw = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in pairs]
        self.scope = {"type": "http", "method": "POST", "headers": raw}
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def run(self, guard: Guard) -> "Exchange":
        asyncio.run(guard(self.scope, self.receive, self.send))
        return self

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def code(self) -> str:
        return json.loads(self.body)["error"]["code"]


async def echo(_: Message, receive: Receive, send: Send) -> None:
    """An app that answers with the length of what it got."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(body)).encode()})


def part(size: int, more: bool) -> Message:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


def guarded(app: App = echo, **options: Any) -> Guard:
    return Guard(app, LIMIT, **options)


def test_a_body_arrives_in_one_piece() -> None:
    exchange = Exchange(part(400, True), part(600, False)).run(guarded())
    assert (exchange.status, exchange.body) == (200, b"1000")


def test_a_declared_length_is_refused_before_anything_is_read() -> None:
    exchange = Exchange(part(0, False), headers={"content-length": "1001"}).run(guarded())
    assert (exchange.status, exchange.code) == (413, "body_too_large")
    assert exchange.headers[b"connection"] == b"close"


@pytest.mark.parametrize(
    ("headers", "keeps"),
    [
        ({}, True),
        ({"content-length": "500"}, True),
        ({"content-length": "65536"}, True),
        ({"content-length": "65537"}, False),
        ({"content-length": "-1"}, False),
        ({"content-length": "5", "expect": "100-continue"}, False),
        ({"transfer-encoding": "chunked"}, False),
        ({"content-length": "5", "connection": "Close"}, False),
    ],
)
def test_a_connection_is_kept_if_what_is_refused_at_the_door_is_short(
    headers: dict[str, str], keeps: bool
) -> None:
    def door() -> None:
        raise ServingError(429, "queue_full", "full", retry_after=1)

    exchange = Exchange({"type": "http.disconnect"}, headers=headers).run(guarded(door=door))
    assert (exchange.status, exchange.code) == (429, "queue_full")
    assert (b"connection" not in exchange.headers) == keeps
    assert exchange.sent[1]["more_body"] != keeps


@pytest.mark.parametrize("length", ["", "x", "-1", "1_0", "+5", "5, 5", "\xb2", "9" * 5000])
def test_a_declared_length_that_is_no_number_is_refused(length: str) -> None:
    exchange = Exchange(part(5, False), part(0, False), headers={"content-length": length})
    exchange.run(guarded())
    assert (exchange.status, exchange.code) == (400, "bad_http")


def test_the_app_knows_the_request_s_id() -> None:
    seen: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append(scope["request_id"])
        await echo(scope, receive, send)

    exchange = Exchange(part(5, False)).run(guarded(app))
    assert [exchange.headers[b"x-request-id"].decode()] == seen


def test_what_arrives_is_counted_whatever_was_declared() -> None:
    parts = [part(300, True)] * 4
    for headers in ({}, {"content-length": "5"}):
        exchange = Exchange(*parts, {"type": "http.disconnect"}, headers=headers).run(guarded())
        assert (exchange.status, exchange.code) == (413, "body_too_large")


def test_the_answer_does_not_wait_for_the_rest_of_the_body() -> None:
    guard, seen = guarded(), []

    class Watching(Exchange):
        async def receive(self) -> Message:
            seen.append(len(self.sent))
            return await super().receive()

    parts = [part(600, True), part(600, True), part(600, True), part(600, False)]
    exchange = Watching(*parts).run(guard)
    assert seen == [0, 0, 2, 2]  # head and body of the answer, then what the client still sent
    assert exchange.sent[1]["more_body"]
    assert not exchange.sent[2]["more_body"]


def test_an_endless_body_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.02)

    class Endless(Exchange):
        async def receive(self) -> Message:
            await asyncio.sleep(0)
            return part(600, True)

    assert Endless().run(guarded()).status == 413


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.02)
    exchange = Exchange(part(5, True)).run(guarded(body_seconds=0.02))
    assert (exchange.status, exchange.code) == (408, "body_timeout")


def test_a_client_that_leaves_is_not_served() -> None:
    called: list[Message] = []

    async def app(scope: Message, _: Receive, __: Send) -> None:
        called.append(scope)

    Exchange(part(5, True), {"type": "http.disconnect"}, {"type": "http.disconnect"}).run(
        guarded(app)
    )
    assert called == []


def test_bodies_in_flight_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODIES_IN_FLIGHT", 2)

    async def main() -> tuple[list[Exchange], Exchange, Exchange]:
        release = asyncio.Event()

        async def slow(scope: Message, receive: Receive, send: Send) -> None:
            await release.wait()
            await echo(scope, receive, send)

        guard = guarded(slow)
        inside = [Exchange(part(1000, False)) for _ in range(2)]
        tasks = [asyncio.create_task(guard(e.scope, e.receive, e.send)) for e in inside]
        await asyncio.sleep(0)
        refused, later = Exchange(part(1, False), part(0, False)), Exchange(part(1000, False))
        await guard(refused.scope, refused.receive, refused.send)
        release.set()
        await asyncio.gather(*tasks)
        await guard(later.scope, later.receive, later.send)
        return inside, refused, later

    inside, refused, later = asyncio.run(main())
    assert [exchange.status for exchange in inside] == [200, 200]
    assert (refused.status, refused.code) == (503, "overloaded")
    assert refused.headers[b"retry-after"] == b"1"
    assert later.status == 200


def test_what_is_fetched_counts_with_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODIES_IN_FLIGHT", 1)

    def fetching(size: int) -> App:
        async def app(scope: Message, receive: Receive, send: Send) -> None:
            hold = current().on_bytes
            assert hold is not None
            for _ in range(size // 100):
                hold(100)
            await echo(scope, receive, send)

        return app

    guard = guarded(fetching(600))
    for _ in range(3):  # what was held is given back
        assert Exchange(part(400, False)).run(guard).status == 200
    exchange = Exchange(part(500, False), part(0, False)).run(guard)
    assert (exchange.status, exchange.code) == (413, "body_too_large")
    assert b"what is fetched for it" in exchange.body
    assert Exchange(part(1000, False)).run(guarded(echo)).status == 200


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP"])
def test_compressed_bodies_are_refused(encoding: str) -> None:
    exchange = Exchange(part(5, False), headers={"content-encoding": encoding}).run(guarded())
    assert (exchange.status, exchange.code) == (415, "unsupported_content_encoding")


def test_chunks_are_no_compression() -> None:
    for coding, status in (("chunked", 200), ("Chunked", 200), ("gzip, chunked", 415)):
        exchange = Exchange(part(5, False), headers={"transfer-encoding": coding}).run(guarded())
        assert exchange.status == status


def failing(started: bool) -> Callable[..., Any]:
    async def app(_: Message, __: Receive, send: Send) -> None:
        current().cost = 70
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("secret of the library")

    return app


def test_a_failure_is_logged_under_the_request_s_id(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        exchange = Exchange(
            part(5, False), part(0, False), headers={"x-request-id": "my-request.1"}
        ).run(guarded(failing(started=False)))
    assert (exchange.status, exchange.code) == (500, "internal")
    assert exchange.headers[b"x-request-id"] == b"my-request.1"
    assert exchange.headers[b"x-should-retry"] == b"false"
    assert b"secret" not in exchange.body
    assert "my-request.1" in caplog.text


def test_a_failure_within_an_answer_adds_nothing_to_it() -> None:
    assert len(Exchange(part(5, False)).run(guarded(failing(started=True))).sent) == 1


class Noted(Ledger):
    """Remembers what was written down."""

    def __init__(self) -> None:
        super().__init__(Metrics())
        self.visits: list[Visit] = []

    def answered(self, visit: Visit) -> None:
        self.visits.append(visit)


@pytest.mark.parametrize(
    ("ends", "used", "reason", "tokens"),
    [
        (False, 0, "client_closed_request", 70),
        (False, 5, "client_closed_request", 5),
        (True, 0, None, 0),
        (True, 5, None, 5),
    ],
    ids=["left", "left-charged", "whole", "whole-charged"],
)
def test_who_leaves_a_started_answer_is_charged_what_it_cost(
    ends: bool, used: int, reason: str | None, tokens: int
) -> None:
    async def app(_: Message, __: Receive, send: Send) -> None:
        current().cost = 70
        current().usage.add(Usage(used))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": not ends})

    ledger = Noted()
    Exchange(part(5, False)).run(guarded(app, ledger=ledger))
    (visit,) = ledger.visits
    assert visit.caller is not None
    assert (visit.status, visit.reason, visit.caller.usage.tokens) == (200, reason, tokens)


def test_who_is_given_up_is_charged_what_it_cost() -> None:
    async def app(scope: Message, _: Receive, __: Send) -> None:
        current().cost = 70
        raise too_late(600)

    ledger = Noted()
    exchange = Exchange(part(5, False), part(0, False)).run(guarded(app, ledger=ledger))
    (visit,) = ledger.visits
    assert visit.caller is not None
    assert (exchange.status, exchange.code) == (504, "request_timeout")
    assert visit.caller.usage.tokens == 70


def test_a_failure_of_ours_within_an_answer_costs_nothing() -> None:
    ledger = Noted()
    Exchange(part(5, False)).run(guarded(failing(started=True), ledger=ledger))
    (visit,) = ledger.visits
    assert visit.caller is not None
    assert (visit.reason, visit.caller.usage.tokens) == ("internal", 0)


@pytest.mark.parametrize(
    ("path", "told"), [("/v1/embeddings", True), ("/v1/indexes/a", True), ("/v2/embed", False)]
)
def test_paths_of_openai_tell_how_long_it_took(path: str, told: bool) -> None:
    for app, status in ((echo, 200), (failing(started=False), 500)):
        exchange = Exchange(part(5, False), part(0, False))
        exchange.scope["path"] = path
        headers = exchange.run(guarded(app)).headers
        assert exchange.status == status
        assert (b"openai-processing-ms" in headers) == told
        assert headers.get(b"openai-processing-ms", b"0").isdigit()


def test_a_key_with_a_quota_is_told_what_is_left() -> None:
    class Keyed(Access):
        """Lets in a key with four requests a minute, of which it has used one."""

        def enter(self, path: str, headers: Any, is_route: Any = None) -> Caller:
            quota = Quota(Limits(requests=4))
            quota.enter()
            return Caller("alice", "key", quota=quota)

    exchange = Exchange(part(5, False)).run(guarded(access=Keyed()))
    assert exchange.headers[b"x-ratelimit-limit-requests"] == b"4"
    assert exchange.headers[b"x-ratelimit-remaining-requests"] == b"3"
    assert exchange.headers[b"x-ratelimit-reset-requests"].endswith(b"s")
    assert not any(b"ratelimit" in name for name in Exchange(part(5, False)).run(guarded()).headers)


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "\x1b[31m", "a\tb"])
def test_an_id_that_could_harm_a_log_is_replaced(given: str) -> None:
    exchange = Exchange(part(5, False), headers={"x-request-id": given}).run(guarded())
    made = exchange.headers[b"x-request-id"]
    assert made != given.encode()
    assert len(made) == 32
