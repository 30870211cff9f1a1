import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trimodal_serving import deadline as module
from trimodal_serving.app import _unless_gone
from trimodal_serving.deadline import Deadline
from trimodal_serving.errors import ServingError

CLOCK = re.compile(r"time\.time\(|\.now\(|utcnow\(|\.today\(")


class Body:
    """Gives two pieces, and then waits for ever or ends."""

    def __init__(self, *, ends: bool) -> None:
        self._ends = ends
        self.closed = False

    async def __call__(self) -> AsyncIterator[bytes]:
        try:
            yield b"a"
            yield b"b"
            if not self._ends:
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def read(deadline: Deadline, body: Body, found: list[bytes]) -> None:
    async for piece in deadline.pieces(body()):
        found.append(piece)


def test_what_comes_in_time_comes_whole() -> None:
    for seconds in (None, 600.0):
        body, found = Body(ends=True), []
        asyncio.run(read(Deadline(seconds, time.monotonic()), body, found))
        assert found == [b"a", b"b"]
        assert body.closed


def test_what_does_not_end_is_given_up() -> None:
    body, found = Body(ends=False), []
    deadline = Deadline(0.05, time.monotonic())
    with pytest.raises(ServingError, match=r"longer than 0.05 s") as caught:
        asyncio.run(read(deadline, body, found))
    assert (caught.value.status, caught.value.code) == (504, "request_timeout")
    assert found == [b"a", b"b"]
    assert body.closed
    assert deadline.left == 0


def test_time_counts_from_the_head() -> None:
    assert Deadline(5.0, time.monotonic() - 10).left == 0
    left = Deadline(5.0, time.monotonic()).left
    assert left is not None
    assert 0 < left <= 5
    assert Deadline(None, 0.0).left is None


def test_nothing_waits_by_the_clock_of_the_day() -> None:
    """It jumps; answers and logs are dated by it, and keys expire by it."""
    sources = Path(module.__file__).parent.rglob("*.py")
    found = {path.name for path in sources if CLOCK.search(path.read_text(encoding="utf-8"))}
    assert found == {"access.py", "app.py", "chat.py", "keys.py", "ledger.py", "pictures.py"}


def test_who_leaves_while_a_late_request_is_given_up_changes_nothing() -> None:
    left, complaints = asyncio.Event(), list[Any]()

    async def receive() -> None:
        await left.wait()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
            await asyncio.sleep(0.01)

    async def main() -> str:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        request: Any = SimpleNamespace(receive=receive)
        with pytest.raises(ServingError) as caught:
            await _unless_gone(request, work(), Deadline(0.01, time.monotonic()))
        return caught.value.code

    assert asyncio.run(main()) == "request_timeout"
    assert complaints == []
