import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from trimodal.batch import Modality
from trimodal.models import TrimodalModel
from trimodal.processors import TrimodalProcessor
from trimodal_serving.admission import Admission
from trimodal_serving.caller import Caller, acting
from trimodal_serving.codes import Codec
from trimodal_serving.decoders import Decoders
from trimodal_serving.errors import ServingError
from trimodal_serving.inputs import Input


def run(processor: Any, work: Any, capacity: int = 1000) -> Any:
    """Something done with a codec."""

    async def all_of_it() -> Any:
        decoders, executor = Decoders(), ThreadPoolExecutor(1)
        try:
            return await work(Codec(processor, decoders, Admission(capacity), executor))
        finally:
            decoders.close()
            executor.shutdown()

    return asyncio.run(all_of_it())


def test_a_model_without_tokenizers_knows_texts_alone(model: TrimodalModel) -> None:
    assert model.processor is not None
    plain = TrimodalProcessor(model.architecture, model.processor.text.proto)

    async def work(codec: Codec) -> None:
        codes = await codec.encode(Input("data", {Modality.TEXT: "red"}))
        assert codes.size == plain.text.num_pieces
        assert await codec.decode(Modality.TEXT, codes.rows) == "red"
        with pytest.raises(ServingError, match="no tokenizer of image"):
            await codec.decode(Modality.VISION, [[1]])

    run(plain, work)


def test_a_full_server_says_so(model: TrimodalModel) -> None:
    async def work(codec: Codec) -> None:
        with pytest.raises(ServingError) as caught:
            await codec.decode(Modality.TEXT, [[1]])
        assert caught.value.code == "queue_full"

    run(model.processor, work, capacity=0)


def test_a_failure_of_the_library_is_ours(
    model: TrimodalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.processor is not None

    def fail(_: object) -> str:
        raise RuntimeError("secret")

    monkeypatch.setattr(model.processor.text, "decode", fail)

    async def work(codec: Codec) -> None:
        with pytest.raises(ServingError) as caught:
            await codec.decode(Modality.TEXT, [[1]])
        assert (caught.value.status, caught.value.code) == (500, "internal")
        assert isinstance(caught.value.__cause__, RuntimeError)

    run(model.processor, work)


def test_tenants_take_turns_and_batches_wait_for_one(
    model: TrimodalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.processor is not None
    begun, gate = threading.Event(), threading.Event()
    done: list[str] = []

    def decode(ids: list[int]) -> str:
        begun.set()
        gate.wait(20)
        return str(len(ids))

    monkeypatch.setattr(model.processor.text, "decode", decode)

    async def ask(codec: Codec, tenant: str) -> None:
        with acting(Caller(tenant)):
            await codec.decode(Modality.TEXT, [[1]])
        done.append(tenant)

    async def work(codec: Codec) -> None:
        tasks = [asyncio.create_task(ask(codec, "noisy")) for _ in range(20)]
        assert await asyncio.to_thread(begun.wait, 20)
        batch = codec._executor.submit(lambda: done.append("batch"))
        tasks.append(asyncio.create_task(ask(codec, "quiet")))
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks, asyncio.wrap_future(batch))

    run(model.processor, work)
    assert len(done) == 22
    assert done.index("batch") <= 1
    assert done.index("quiet") <= 3


def test_a_sound_that_is_not_finite_is_not_sent(
    model: TrimodalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.processor is not None
    codes = model.processor.codes
    assert codes is not None
    start = codes.vocabulary.speech.start
    broken = [np.array([0.0, np.nan], np.float32)]

    async def work(codec: Codec) -> None:
        (samples,) = codes.tokenizers.waveforms([torch.tensor([3, 5])])
        assert np.array_equal(await codec.sound([start + 3, start + 5]), samples)
        monkeypatch.setattr(type(codes), "waveforms", lambda *_: broken)
        with pytest.raises(ServingError) as caught:
            await codec.sound([start + 3])
        assert caught.value.code == "nonfinite_output"

    run(model.processor, work)
