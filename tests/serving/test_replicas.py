"""Two real processes with one model: the work is shared, and one may die unnoticed."""

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from trimodal.errors import ConfigError
from trimodal.models import TrimodalModel
from trimodal.testing import assert_close
from trimodal_serving.backend import Setting
from trimodal_serving.errors import ServingError
from trimodal_serving.inputs import parse_inputs
from trimodal_serving.nursery import LastingNursery
from trimodal_serving.replicas import Replicas

RED = parse_inputs(["red"], None)


def processes(lasting: LastingNursery) -> list[int]:
    """In the order in which the nursery forked them."""
    nursery = lasting._nursery
    assert nursery is not None
    pid = nursery._process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def the_less_busy_answers(replicas: Replicas, nursery: LastingNursery) -> None:
    first, _ = processes(nursery)
    os.kill(first, signal.SIGSTOP)
    waiting = asyncio.create_task(replicas.embed(RED))
    await asyncio.sleep(0.05)
    assert replicas.engines[0].admission.requests == replicas.requests == 1
    for _ in range(3):
        assert len(await replicas.embed(RED)) == 1
    assert not waiting.done()
    assert replicas.tokens > 0
    os.kill(first, signal.SIGCONT)
    assert len(await waiting) == 1
    assert (replicas.requests, replicas.tokens) == (0, 0)


async def one_that_dies_is_not_missed(replicas: Replicas, nursery: LastingNursery) -> None:
    dead, other = processes(nursery)
    os.kill(dead, signal.SIGKILL)
    while replicas.engines[0].is_ready():
        await asyncio.sleep(0.01)
    replicas.check()
    replicas.check_room()
    assert replicas.is_ready()
    assert len(await replicas.embed(RED)) == 1
    async with asyncio.timeout(60):
        while not replicas.engines[0].is_ready():
            await asyncio.sleep(0.02)
    assert dead not in processes(nursery)
    assert processes(nursery)[0] == other


async def until_gone(nursery: LastingNursery) -> None:
    """The processes that it forked have ended; there are none of others."""
    async with asyncio.timeout(60):
        while processes(nursery):
            await asyncio.sleep(0.01)


def test_two_processes(
    model_folder: Path, model: TrimodalModel, loop: asyncio.Runner, nursery: LastingNursery
) -> None:
    measured: list[str] = []

    async def main() -> None:
        settings = [Setting(str(model_folder), replica=i, replicas=2) for i in range(2)]
        replicas = Replicas(settings, lambda name, _: measured.append(name), 120.0, nursery)
        with pytest.raises(ServingError) as caught:
            replicas.check()
        assert caught.value.code == "loading"
        try:
            await replicas.start()
            expected = model.embed(text=["red"])["text"]
            for engine in replicas.engines:
                vectors = [one.vector for one in await engine.embed(RED)]
                assert_close(np.stack(vectors), expected, "served-vs-offline")
            assert replicas.generates == (*model.config.generates, "answers")
            await the_less_busy_answers(replicas, nursery)
            await one_that_dies_is_not_missed(replicas, nursery)
            pids = processes(nursery)
            assert len(pids) == 2
        finally:
            await replicas.close()
            await until_gone(nursery)
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        with pytest.raises(ServingError) as caught:
            await replicas.embed(RED)
        assert caught.value.code == "draining"

    loop.run(main())
    assert measured.count("worker_restarts") == 1


def test_a_folder_that_is_no_model_is_told(
    tmp_path: Path, loop: asyncio.Runner, nursery: LastingNursery
) -> None:
    async def main() -> None:
        replicas = Replicas([Setting(str(tmp_path))] * 2, lambda *_: None, 120.0, nursery)
        try:
            await replicas.start()
        finally:
            await replicas.close()
            await until_gone(nursery)

    with pytest.raises(ConfigError, match="is not a model folder"):
        loop.run(main())
