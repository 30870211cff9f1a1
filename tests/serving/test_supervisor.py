"""The supervisor over backends that are tasks of this process."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from trimodal.errors import NumericError, StoppedError, TrimodalError
from trimodal.models import TrimodalModel
from trimodal_serving import supervisor as module
from trimodal_serving.backend import Backend, Setting
from trimodal_serving.channel import Channel
from trimodal_serving.errors import ServingError
from trimodal_serving.nursery import LastingNursery, NurseryLostError
from trimodal_serving.supervisor import Supervisor


class Child:
    def __init__(self, channel: Channel, task: "asyncio.Task[None]") -> None:
        self.channel = channel
        self.task = task

    def kill(self) -> None:
        self.task.cancel()

    def release(self) -> None:
        self.channel.close()


class Nursery:
    """Stands for the process that forks."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self.load = load
        self.children: list[Child] = []
        self.started = 0
        self.lost = False
        self.is_full = False

    async def start(self) -> "Nursery":
        self.started += 1
        self.lost = False
        return self

    async def spawn(self, _: Setting) -> Child:
        if self.lost:
            raise NurseryLostError
        if self.is_full:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        ours, theirs = socket.socketpair()
        backend = Backend(await Channel.open(theirs), self.load, 16_384)
        child = Child(await Channel.open(ours), asyncio.create_task(backend.run()))
        self.children.append(child)
        return child

    async def ended(self) -> None:
        await asyncio.Event().wait()  # nobody tells of it

    async def close(self) -> None:
        for child in self.children:
            child.kill()


@asynccontextmanager
async def supervised(
    monkeypatch: pytest.MonkeyPatch, load: Callable[[], Any]
) -> AsyncIterator[tuple[Supervisor, Nursery, list[str]]]:
    nursery, measured = Nursery(load), list[str]()
    monkeypatch.setattr("trimodal_serving.nursery.Nursery", nursery)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    lasting = LastingNursery()
    supervisor = Supervisor(Setting("x"), lambda name, _: measured.append(name), 60.0, lasting)
    try:
        yield supervisor, nursery, measured
    finally:
        await supervisor.close()
        await lasting.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def code(supervisor: Supervisor) -> str | None:
    """Why there is no process, if there is none."""
    try:
        supervisor.check()
    except ServingError as error:
        return error.code if error.status == 503 and error.retry_after else "of another kind"
    return None


def test_what_ends_is_replaced(monkeypatch: pytest.MonkeyPatch, model: TrimodalModel) -> None:
    async def main() -> None:
        async with supervised(monkeypatch, lambda: model) as (supervisor, nursery, measured):
            assert code(supervisor) == "loading"
            said = await supervisor.start()
            assert said["generates"]
            assert code(supervisor) is None
            for i in range(3):
                link = supervisor.link
                nursery.children[-1].kill()
                await until(lambda link=link: link.ended)
                assert code(supervisor) == "worker_restarting"
                await until(lambda: code(supervisor) is None)
                assert len(nursery.children) == i + 2
            assert measured.count("worker_restarts") == 3
            assert nursery.started == 1

    asyncio.run(main())


def test_a_batch_without_an_end_is_ended(
    monkeypatch: pytest.MonkeyPatch, model: TrimodalModel
) -> None:
    async def main() -> None:
        async with supervised(monkeypatch, lambda: model) as (supervisor, nursery, _):
            await supervisor.start()
            link = supervisor.link
            link.batch_seconds = 1e9  # as a beat would say
            supervisor._batch_seconds = 1e8
            await until(lambda: link.ended)
            await until(lambda: code(supervisor) is None)
            assert len(nursery.children) == 2

    asyncio.run(main())


def test_a_model_that_fails_on_everything_is_replaced(
    monkeypatch: pytest.MonkeyPatch, model: TrimodalModel
) -> None:
    async def main() -> None:
        async with supervised(monkeypatch, lambda: model) as (supervisor, nursery, measured):
            await supervisor.start()
            link = supervisor.link
            link.failed_batches = module.MOST_FAILED - 1  # as a beat would say
            await asyncio.sleep(0.05)
            assert not link.ended
            link.failed_batches = module.MOST_FAILED
            await until(lambda: link.ended)
            await until(lambda: code(supervisor) is None)
            assert len(nursery.children) == 2
            assert measured.count("worker_restarts") == 1

    asyncio.run(main())


def test_silence_is_noticed(monkeypatch: pytest.MonkeyPatch, model: TrimodalModel) -> None:
    monkeypatch.setattr("trimodal_serving.backend.BEAT_SECONDS", 1e6)
    monkeypatch.setattr(module, "STALE_SECONDS", 0.0)

    async def main() -> None:
        async with supervised(monkeypatch, lambda: model) as (supervisor, nursery, _):
            monkeypatch.setattr(module, "SILENT_SECONDS", 1e6)
            await supervisor.start()
            assert code(supervisor) == "worker_restarting"  # it beats no more
            monkeypatch.setattr(module, "SILENT_SECONDS", 0.05)
            await until(lambda: len(nursery.children) > 1)

    asyncio.run(main())


def test_a_lost_nursery_is_replaced(monkeypatch: pytest.MonkeyPatch, model: TrimodalModel) -> None:
    async def main() -> None:
        async with supervised(monkeypatch, lambda: model) as (supervisor, nursery, _):
            await supervisor.start()
            nursery.lost = True
            nursery.children[-1].kill()
            await until(lambda: len(nursery.children) == 2 and code(supervisor) is None)
            assert nursery.started == 2

    asyncio.run(main())


def test_a_first_process_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> Any:
        raise NumericError("its weights are broken")

    async def main() -> TrimodalError:
        async with supervised(monkeypatch, load) as (supervisor, nursery, _):
            with pytest.raises(NumericError, match="its weights are broken"):
                await supervisor.start()
            nursery.lost = True
            with pytest.raises(StoppedError, match="ended while it started"):
                await supervisor.start()
            nursery.lost, nursery.is_full = False, True
            with pytest.raises(StoppedError, match="cannot be started: Too many") as caught:
                await supervisor.start()
            return caught.value

    assert asyncio.run(main()).exit_code == 75


def test_a_process_is_started_once_there_is_room_for_it(
    monkeypatch: pytest.MonkeyPatch, model: TrimodalModel, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with supervised(monkeypatch, lambda: model) as (supervisor, nursery, _):
            await supervisor.start()
            nursery.is_full = True
            nursery.children[-1].kill()
            await until(lambda: "no process can be started: Too many open files" in caplog.text)
            assert code(supervisor) == "worker_restarting"
            nursery.is_full = False
            await until(lambda: code(supervisor) is None)
            assert len(nursery.children) == 2

    asyncio.run(main())


def test_a_later_process_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, model: TrimodalModel
) -> None:
    failures = [NumericError("not yet")] * 2

    async def main() -> None:
        async with supervised(monkeypatch, lambda: model) as (supervisor, nursery, _):
            await supervisor.start()

            def load() -> Any:
                if failures:
                    raise failures.pop()
                return model

            nursery.load = load
            nursery.children[-1].kill()
            await until(lambda: len(nursery.children) == 4 and code(supervisor) is None)

    asyncio.run(main())
