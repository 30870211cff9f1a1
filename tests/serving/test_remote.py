"""A real process with the model, which is killed, stopped and left to hang."""

import asyncio
import base64
import io
import os
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trimodal.batch import Modality
from trimodal.errors import ConfigError
from trimodal.models import TrimodalModel
from trimodal.testing import assert_close
from trimodal_serving import supervisor as module
from trimodal_serving.backend import Setting
from trimodal_serving.caller import Caller, acting
from trimodal_serving.errors import ServingError
from trimodal_serving.fulfilment import Made
from trimodal_serving.inputs import Input, parse_inputs
from trimodal_serving.nursery import LastingNursery
from trimodal_serving.orders import Order
from trimodal_serving.remote import BATCH_SECONDS, RemoteEngine

RED = parse_inputs(["red"], None)
SPOKEN = Order(item=Input("input", {Modality.TEXT: "red"}), to=Modality.TEXT, lang="zh")


@asynccontextmanager
async def running(
    folder: Path, nursery: LastingNursery
) -> AsyncIterator[tuple[RemoteEngine, list[str]]]:
    measured: list[str] = []
    setting, note = Setting(str(folder)), lambda name, _: measured.append(name)
    engine = RemoteEngine(setting, note, BATCH_SECONDS, nursery)
    try:
        await engine.start()
        yield engine, measured
    finally:
        await engine.close()
        await until_gone(nursery)


async def until_gone(nursery: LastingNursery) -> None:
    """The processes that it forked have ended; there are none of others."""
    assert nursery._nursery is not None
    pid = nursery._nursery._process.pid
    async with asyncio.timeout(60):
        while Path(f"/proc/{pid}/task/{pid}/children").read_text():
            await asyncio.sleep(0.01)


def children(parent: int) -> list[int]:
    """Processes whose parent is this one."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(folder.name))
    return found


def nursery_of(engine: RemoteEngine) -> int:
    nursery = engine._supervisor._nursery._nursery
    assert nursery is not None
    return nursery._process.pid


def worker_of(engine: RemoteEngine) -> int:
    (pid,) = children(nursery_of(engine))
    return pid


async def until_ready(engine: RemoteEngine) -> None:
    async with asyncio.timeout(300):
        while not engine.is_ready():
            await asyncio.sleep(0.02)


async def refusal(work: Awaitable[Any]) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await work
    return caught.value


async def answers_as_if_it_were_here(engine: RemoteEngine, model: TrimodalModel) -> None:
    texts = ["red", "红色的方块", "a square"]
    embeddings = await engine.embed(parse_inputs(texts, None))
    expected = model.embed(text=texts)["text"]
    assert_close(np.stack([one.vector for one in embeddings]), expected, "served-vs-offline")
    assert engine.dimensions == model.architecture.dimensions
    assert engine.generates == (*model.config.generates, "answers")
    made = await engine.generate(SPOKEN)
    pieces = [piece async for piece in engine.stream(SPOKEN)]
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == made.outputs[0]
    drawing = Order(item=SPOKEN.item, to=Modality.VISION, seeds=(0, 1))
    pictures = (await engine.generate(drawing)).outputs
    assert [picture.dtype for picture in pictures if isinstance(picture, np.ndarray)] == ["u1"] * 2
    speaking = Order(item=SPOKEN.item, to=Modality.SPEECH, lang="zh")
    *pieces, last = [piece async for piece in engine.stream(speaking)]
    assert isinstance(last, Made)
    sounds = [piece for piece in pieces if isinstance(piece, np.ndarray)]
    assert np.array_equal(np.concatenate(sounds), last.outputs[0])
    error = await refusal(engine.embed(parse_inputs(["red", {"image": "AAAA"}], None)))
    assert (error.code, error.param) == ("invalid_image", "input[1]")
    assert engine.admission.idle


async def a_killed_process_is_replaced(engine: RemoteEngine, measured: list[str]) -> None:
    for _ in range(2):
        pid = worker_of(engine)
        os.kill(pid, signal.SIGSTOP)  # so that the request is inside when it dies
        inside = asyncio.create_task(engine.embed(RED))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        error = await refusal(inside)
        assert (error.status, error.code) == (503, "worker_restarting")
        assert error.retry_after is not None
        assert (await refusal(engine.embed(RED))).code == "worker_restarting"
        await until_ready(engine)
        assert worker_of(engine) != pid
        assert len(await engine.embed(RED)) == 1
        assert engine.admission.idle
    assert measured.count("worker_restarts") == 2


async def a_lost_nursery_is_replaced_before_the_next_process(engine: RemoteEngine) -> None:
    pid = nursery_of(engine)
    worker = worker_of(engine)
    os.kill(pid, signal.SIGKILL)
    lasting = engine._supervisor._nursery
    async with asyncio.timeout(300):
        while lasting._nursery is None or nursery_of(engine) == pid:
            await asyncio.sleep(0.02)
    fresh = nursery_of(engine)
    assert engine.is_ready()
    assert len(await engine.embed(RED)) == 1  # the process lives on
    assert children(fresh) == []
    os.kill(worker, signal.SIGKILL)
    await refusal(engine.embed(RED))
    await until_ready(engine)
    assert nursery_of(engine) == fresh
    assert worker_of(engine) != worker


def test_a_process_that_is_killed_again_and_again(
    model_folder: Path, model: TrimodalModel, loop: asyncio.Runner, nursery: LastingNursery
) -> None:
    async def main() -> None:
        async with running(model_folder, nursery) as (engine, measured):
            await answers_as_if_it_were_here(engine, model)
            await a_killed_process_is_replaced(engine, measured)
            await a_lost_nursery_is_replaced_before_the_next_process(engine)
            assert {"decode_seconds", "queue_wait_seconds", "batch_items"} <= set(measured)
            worker = worker_of(engine)
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)

    loop.run(main())


def test_a_process_that_hangs_is_replaced(
    model_folder: Path,
    loop: asyncio.Runner,
    nursery: LastingNursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 3.0)

    async def main() -> None:
        async with running(model_folder, nursery) as (engine, _):
            pid = worker_of(engine)
            os.kill(pid, signal.SIGSTOP)
            assert (await refusal(engine.embed(RED))).code == "worker_restarting"
            await until_ready(engine)
            assert worker_of(engine) != pid
            assert len(await engine.embed(RED)) == 1

    loop.run(main())


@contextmanager
def limited(pid: int, kind: int, limit: int) -> Iterator[None]:
    """A process that gets no more of something for a while."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (limit, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, kind, before)


def picture(size: int) -> list[Input]:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(stream, "PNG")
    return parse_inputs([{"image": base64.b64encode(stream.getvalue()).decode()}])


async def a_process_without_descriptors_opens_no_files(engine: RemoteEngine) -> None:
    with limited(worker_of(engine), resource.RLIMIT_NOFILE, 3):
        error = await refusal(engine.embed(picture(8)))
        assert (error.status, error.code, error.param) == (503, "overloaded", "input[0]")
        assert len(await engine.embed(RED)) == 1
    assert len(await engine.embed(picture(8))) == 1


async def a_process_without_memory_answers_what_fits(engine: RemoteEngine) -> None:
    pid = worker_of(engine)
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    with limited(pid, resource.RLIMIT_AS, size + (8 << 20)):
        error = await refusal(engine.embed(picture(2000) * 4))
        assert error.code in ("internal", "worker_restarting")
        await until_ready(engine)
        assert len(await engine.embed(RED)) == 1
    assert len(await engine.embed(picture(2000) * 4)) == 4


def test_a_process_with_too_little_is_well_again_with_more(
    model_folder: Path, loop: asyncio.Runner, nursery: LastingNursery
) -> None:
    async def main() -> None:
        async with running(model_folder, nursery) as (engine, _):
            await a_process_without_descriptors_opens_no_files(engine)
            await a_process_without_memory_answers_what_fits(engine)
            assert engine.admission.idle

    loop.run(main())


def test_a_cancelled_request_leaves_nothing_behind(
    model_folder: Path, loop: asyncio.Runner, nursery: LastingNursery
) -> None:
    async def main() -> None:
        async with running(model_folder, nursery) as (engine, _):
            with acting(Caller("alice", priority="bulk")) as caller:
                task = asyncio.create_task(engine.embed(parse_inputs(["red"] * 2000, None)))
            await asyncio.sleep(0.05)
            assert engine.admission.tokens > 0
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert engine.admission.idle
            assert caller.cost > 0
            assert len(await engine.embed(RED)) == 1

    loop.run(main())


def test_a_folder_that_is_no_model_is_told(
    tmp_path: Path, loop: asyncio.Runner, nursery: LastingNursery
) -> None:
    async def main() -> None:
        async with running(tmp_path, nursery):
            pass

    with pytest.raises(ConfigError, match="is not a model folder"):
        loop.run(main())


def test_before_and_after_nothing_is_answered(model_folder: Path) -> None:
    async def main() -> None:
        setting, nursery = Setting(str(model_folder)), LastingNursery()
        engine = RemoteEngine(setting, lambda *_: None, BATCH_SECONDS, nursery)
        assert (await refusal(engine.embed(RED))).code == "loading"
        assert not engine.is_ready()
        await engine.close()
        assert (await refusal(engine.embed(RED))).code == "draining"

    asyncio.run(main())
