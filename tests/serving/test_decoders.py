import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import torch

from trimodal.batch import Modality, Sample
from trimodal.models import TrimodalModel
from trimodal_serving.decoders import SHORT, Decoders, is_finite
from trimodal_serving.engine import Engine
from trimodal_serving.errors import ServingError
from trimodal_serving.inputs import Input, Reading, parse_inputs
from trimodal_serving.openers import Openers


@asynccontextmanager
async def running(model: Any) -> AsyncIterator[Engine]:
    engine = Engine(lambda: model)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def texts(*values: str) -> list[Input]:
    return parse_inputs(list(values))


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Opener:
    """In place of what opens pictures, which it replaces by black ones; it waits until told."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.entered = threading.Event()
        self.gate = threading.Event()

    def __call__(self, _: Openers, data: bytes, max_pixels: int) -> np.ndarray:
        assert max_pixels == 40_000_000
        self.seen.append(data)
        self.entered.set()
        assert self.gate.wait(20)
        return np.zeros((4, 4, 3), np.uint8)


@pytest.fixture
def opener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    opener = Opener()
    monkeypatch.setattr(Openers, "picture", lambda *given, **named: opener(*given, **named))
    yield opener
    opener.gate.set()


def pictures(data: bytes, count: int) -> list[Input]:
    return parse_inputs([encoded(data)] * count, Reading(Modality.VISION))


def test_a_text_waits_for_no_picture(scripted: Any, opener: Opener) -> None:
    async def main() -> None:
        async with running(scripted) as engine:
            slow = asyncio.create_task(engine.embed(pictures(b"slow", 64)))
            assert await asyncio.to_thread(opener.entered.wait, 20)
            async with asyncio.timeout(20):
                assert len(await engine.embed(texts("red"))) == 1
            opener.gate.set()
            assert len(await slow) == 64

    asyncio.run(main())


def test_a_short_text_needs_no_thread(model: TrimodalModel) -> None:
    processor = model.processor
    assert processor is not None

    async def main() -> list[Sample]:
        decoders = Decoders()
        decoders.close()
        with pytest.raises(RuntimeError, match="after shutdown"):
            await decoders.samples(texts("red " * SHORT), processor)
        return await decoders.samples(texts("red"), processor)

    (sample,) = asyncio.run(main())
    expected = processor.medium(Modality.TEXT, "red")
    assert sample.media[Modality.TEXT].features.tolist() == expected.features.tolist()


def test_requests_take_turns_in_the_decoders(
    scripted: Any, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimodal_serving.decoders.os.cpu_count", lambda: 1)

    async def main() -> None:
        async with running(scripted) as engine:
            first = asyncio.create_task(engine.embed(pictures(b"first", 64)))
            assert await asyncio.to_thread(opener.entered.wait, 20)
            second = asyncio.create_task(engine.embed(pictures(b"second", 2)))
            for _ in range(10):  # it is in line for the decoder now
                await asyncio.sleep(0)
            opener.gate.set()
            assert [len(e) for e in await asyncio.gather(first, second)] == [64, 2]

    asyncio.run(main())
    assert opener.seen == [b"first", b"second"] * 2 + [b"first"] * 62


def test_a_request_alone_uses_every_decoder(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(3)

    def picture(_: Openers, data: bytes, max_pixels: int) -> np.ndarray:
        assert (data, max_pixels) == (b"x", 40_000_000)
        barrier.wait(20)  # until three are here at once
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr("trimodal_serving.decoders.os.cpu_count", lambda: 3)
    monkeypatch.setattr(Openers, "picture", picture)

    async def main() -> int:
        async with running(scripted) as engine:
            return len(await engine.embed(pictures(b"x", 6)))

    assert asyncio.run(main()) == 6


def test_an_overlong_text_is_refused_before_anything_is_tokenised(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> ServingError:
        async with running(scripted) as engine:
            monkeypatch.setattr(scripted.processor.text, "medium", lambda _: 1 / 0)
            with pytest.raises(ServingError) as caught:
                await engine.embed(parse_inputs(["red", {"text": "x" * (limit + 1)}]))
            return caught.value

    limit = 64 * scripted.architecture.max_text_tokens
    error = asyncio.run(main())
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "input[1]")
    assert f"the limit is {limit}" in error.message


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_one_broken_number_is_seen_among_large_ones(broken: float) -> None:
    x = torch.full((7, 33), torch.finfo(torch.float32).max)
    assert is_finite(x)
    for place in ((0, 0), (3, 17), (6, 32)):
        with_it = x.clone()
        with_it[place] = broken
        assert not is_finite(with_it)
