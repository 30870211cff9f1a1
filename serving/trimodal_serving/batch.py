"""Files of requests in OpenAI's batch format: a JSON line in, a JSON line out, in the same order.

count = await run_batch(app, Path("in.jsonl"), Path("out.jsonl"), concurrency=32)
"""

import asyncio
import base64
import json
import os
import re
import uuid
from collections import deque
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trimodal.errors import DataError, StorageError
from trimodal_serving.guard import Guard
from trimodal_serving.media_operations import GENERATION
from trimodal_serving.operations import ALIASES, EMBEDDINGS, KSERVE, TOKENS

LONGEST_PAUSE = 60.0
POSTED = re.compile(
    "|".join(
        one.path.replace("{model}", ".+")
        for one in (*EMBEDDINGS, *GENERATION, *TOKENS, *KSERVE, *ALIASES)
        if one.method == "POST"
    )
)
"""What requests of a batch may ask for; it keeps no indexes."""


@dataclass(frozen=True)
class Line:
    """One request of a file."""

    custom_id: str
    url: str
    body: Any


def read_lines(path: Path) -> Iterator[Line]:
    """The requests of a file, in order.

    Raises:
        DataError: a line that is no request, or an id that is there twice, as `FILE:LINE: cause`.
        StorageError: it cannot be read.
    """
    seen: set[str] = set()
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    line = _line(text, f"{path}:{number}")
                    if line.custom_id in seen:
                        raise DataError(f"{path}:{number}: custom_id is there twice")
                    seen.add(line.custom_id)
                    yield line
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error


def _line(text: bytes, where: str) -> Line:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not a JSON object") from None
    if not isinstance(tree, dict):
        raise DataError(f"{where}: not a JSON object")
    custom_id, url, body = tree.get("custom_id"), tree.get("url"), tree.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        raise DataError(f"{where}: custom_id must be a string that is not empty")
    if tree.get("method", "POST") != "POST":
        raise DataError(f"{where}: method must be POST")
    if not isinstance(url, str) or not POSTED.fullmatch(url):
        what = "a path that takes POST and needs no index"
        raise DataError(f"{where}: url must be {what}, such as /v1/embeddings")
    if not isinstance(body, dict) or body.get("stream") or body.get("stream_format"):
        raise DataError(f"{where}: body must be an object that asks for no stream")
    return Line(custom_id, url, body)


def answered(path: Path) -> set[str]:
    """The ids of a file of answers; a last line that was cut off is taken away.

    Raises:
        StorageError: it cannot be read, or is no file of answers.
    """
    ids: set[str] = set()
    whole = 0
    try:
        with path.open("rb+") as file:
            for number, text in enumerate(file, start=1):
                if not text.endswith(b"\n"):
                    break
                try:
                    ids.add(json.loads(text)["custom_id"])
                except (ValueError, KeyError, TypeError):
                    raise StorageError(
                        f"{path}:{number}: no answer of a batch; name another file"
                    ) from None
                whole += len(text)
            file.truncate(whole)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
    return ids


async def run_batch(app: Guard, source: Path, target: Path, concurrency: int) -> tuple[int, int]:
    """Answer what is not answered yet; running it again goes on where it was ended.

    Args:
        app: the server, called without a network.
        source: requests; all of them are checked before the first is answered.
        target: answers are added to it in the order of the requests.
        concurrency: requests at the same time.

    Returns:
        How many were answered now, and how many of these with an error.

    Raises:
        DataError: see `read_lines`.
        StorageError: a file cannot be read or written.
    """
    for _ in read_lines(source):
        pass
    done = answered(target)
    pending: deque[asyncio.Task[dict[str, Any]]] = deque()
    count = failed = 0
    try:
        with target.open("ab") as file:
            for line in read_lines(source):
                if line.custom_id in done:
                    continue
                if len(pending) >= concurrency:
                    failed += _write(file, await pending.popleft())
                pending.append(asyncio.create_task(_answer(app, line)))
                count += 1
            while pending:
                failed += _write(file, await pending.popleft())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        for task in pending:
            task.cancel()
    return count, failed


def _write(file: BinaryIO, tree: dict[str, Any]) -> bool:
    """Write an answer; True if it is an error."""
    file.write(json.dumps(tree, ensure_ascii=False).encode() + b"\n")
    file.flush()
    return tree["response"]["status_code"] >= 400


async def _answer(app: Guard, line: Line) -> dict[str, Any]:
    body = json.dumps(line.body).encode()
    while True:
        exchange = _Exchange(line.url, body)
        await app(exchange.scope, exchange.receive, exchange.send)
        if exchange.status not in (429, 503):
            break
        # full, or the process of the model is being replaced: neither is the request's fault
        await asyncio.sleep(min(LONGEST_PAUSE, float(exchange.headers.get("retry-after", "1"))))
    return {
        "id": f"batch_req_{uuid.uuid4().hex}",
        "custom_id": line.custom_id,
        "response": {
            "status_code": exchange.status,
            "request_id": exchange.headers["x-request-id"],
            "body": _tree(exchange),
        },
        "error": None,
    }


def _tree(exchange: "_Exchange") -> Any:
    """The body of an answer; what is not JSON, such as sound, as base64."""
    if exchange.headers.get("content-type", "").startswith("application/json"):
        return json.loads(exchange.body)
    kind = exchange.headers.get("content-type", "application/octet-stream")
    return {"content_type": kind, "base64": base64.b64encode(exchange.body).decode()}


class _Exchange:
    """One request to an ASGI app."""

    def __init__(self, path: str, body: bytes) -> None:
        raw = [(b"content-type", b"application/json"), (b"x-priority", b"bulk")]
        self.scope: MutableMapping[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": raw,
        }
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self._request: list[MutableMapping[str, Any]] = [
            {"type": "http.request", "body": body, "more_body": False}
        ]

    async def receive(self) -> MutableMapping[str, Any]:
        if self._request:
            return self._request.pop()
        await asyncio.Event().wait()  # nobody disconnects
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            pairs = message.get("headers", [])
            self.headers = {key.decode().lower(): value.decode() for key, value in pairs}
        else:
            self.body += message.get("body", b"")
