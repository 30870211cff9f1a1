import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from trimodal.batch import Modality
from trimodal.models import TrimodalModel
from trimodal.processors import TrimodalProcessor
from trimodal_serving.admission import Admission
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
