"""The process that forks, for real; it is started once, since it imports for seconds."""

import asyncio
import errno
import logging
import os
import select
import socket
from pathlib import Path
from typing import Any

import pytest

from trimodal_serving import nursery as module
from trimodal_serving.backend import Setting
from trimodal_serving.logs import JsonLines
from trimodal_serving.nursery import Child, LastingNursery, Nursery, NurseryLostError


def ended(child: Child) -> bool:
    """Whether the process of a handle has ended."""
    return bool(select.select([child.handle], [], [], 60)[0])


def test_it_forks_and_takes_its_children_along(model_folder: Path) -> None:
    async def main() -> None:
        nursery = await Nursery.start()
        setting = Setting(str(model_folder))
        one, other, third = [await nursery.spawn(setting) for _ in range(3)]
        assert len({one.pid, other.pid, third.pid}) == 3
        assert os.getpgid(one.pid) == os.getpgid(other.pid) != os.getpgid(0)
        assert os.getsid(one.pid) == os.getsid(0), "scheduled with the server, see sched(7)"
        one.kill()
        assert await asyncio.to_thread(ended, one)
        one.kill()  # once more does nothing, not even to another process of that number
        third.channel.close()  # a child that nobody talks to ends by itself
        assert await asyncio.to_thread(ended, third)
        tree, _ = await other.channel.receive()
        assert tree["kind"] in ("beat", "ready")
        watching = asyncio.create_task(nursery.ended())
        await asyncio.sleep(0)
        assert not watching.done()
        await nursery.close()
        await watching
        await nursery.ended()  # nor is it another process of that number
        assert await asyncio.to_thread(ended, other)
        for child in (one, other, third):
            child.release()
        try:
            await nursery.spawn(setting)
        except NurseryLostError:
            return
        raise AssertionError("a closed nursery forked")

    asyncio.run(main())


class Mortal:
    """A nursery that may be lost; a real one is in `test_remote.py`."""

    def __init__(self) -> None:
        self.lost = self.closed = False
        self.over = asyncio.Event()

    async def spawn(self, _: Setting) -> "Mortal":
        await asyncio.sleep(0)
        if self.lost or self.closed:
            raise NurseryLostError
        return self

    async def ended(self) -> None:
        await self.over.wait()

    async def close(self) -> None:
        self.closed = True
        self.over.set()


def test_a_lasting_one_is_started_again_for_all_that_lost_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[Mortal] = []

    async def start() -> Mortal:
        started.append(Mortal())
        await asyncio.sleep(0)
        return started[-1]

    monkeypatch.setattr(Nursery, "start", start)

    async def main() -> None:
        lasting, setting = LastingNursery(), Setting("model")
        assert await lasting.spawn(setting) is await lasting.spawn(setting)
        started[0].lost = True
        lost = await asyncio.gather(
            lasting.spawn(setting), lasting.spawn(setting), return_exceptions=True
        )
        assert [type(error) for error in lost] == [NurseryLostError] * 2
        assert started[0].closed
        one, other = await asyncio.gather(lasting.spawn(setting), lasting.spawn(setting))
        assert one is other is started[1]
        await lasting.close()
        assert started[1].closed
        with pytest.raises(NurseryLostError):
            await lasting.spawn(setting)
        assert len(started) == 2

    asyncio.run(main())


def test_a_lasting_one_that_ends_is_followed_by_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    started: list[Mortal] = []
    failures = [NurseryLostError(), OSError(errno.EMFILE, "Too many"), RuntimeError("no thread")]

    async def start() -> Mortal:
        if started and failures:
            raise failures.pop()
        started.append(Mortal())
        return started[-1]

    monkeypatch.setattr(Nursery, "start", start)

    async def main() -> None:
        lasting, setting = LastingNursery(), Setting("model")
        first: Any = await lasting.spawn(setting)
        first.over.set()
        async with asyncio.timeout(60):
            while len(started) < 2:
                await asyncio.sleep(0.01)
        assert first.closed
        second: Any = await lasting.spawn(setting)
        assert second is started[1]
        await lasting.close()
        assert second.closed
        assert len(started) == 2

    asyncio.run(main())
    problems = [record.getMessage() for record in caplog.records]
    assert problems[0] == "the nursery ended, another is started"
    assert [text.startswith("no nursery can be started") for text in problems[1:]] == [True] * 3


def test_what_ends_a_child_is_logged_without_its_text(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    codes: list[int] = []

    def serve(*_: Any) -> None:
        raise RuntimeError("secret")

    # what other tests log to may be closed by now, of which logging would tell with all it has
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    monkeypatch.setattr("trimodal_serving.backend.serve", serve)
    monkeypatch.setattr(os, "_exit", codes.append)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        module._live(ours, Setting("x").tree())
    (record,) = caplog.records
    line = JsonLines().format(record)
    assert "the process of the model failed" in line
    assert "RuntimeError" in line
    assert "secret" not in line + capfd.readouterr().err
    assert codes == [1]
