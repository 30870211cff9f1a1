import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trimodal
from trimodal.batch import Modality
from trimodal.errors import NumericError, StorageError
from trimodal.models import TrimodalModel
from trimodal.processors import TrimodalProcessor
from trimodal.testing import assert_close, tiny_tokenizer
from trimodal_serving.engine import Engine
from trimodal_serving.errors import ServingError
from trimodal_serving.inputs import Input, parse_inputs

TEXTS = ["red", "a red square", "the square is blue", "红色的方块", "white"] * 4


@asynccontextmanager
async def running(model: Any, token_budget: int = 16_384) -> AsyncIterator[Engine]:
    engine = Engine(lambda: model, token_budget)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def texts(*values: str) -> list[Input]:
    return parse_inputs(list(values))


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def entered(scripted: Any) -> None:
    """Wait until a batch has reached the model."""
    assert await asyncio.to_thread(scripted.entered.wait, 20)
    scripted.entered.clear()


def hold(scripted: Any) -> None:
    """Let the next batch reach the model and wait there."""
    scripted.entered.clear()
    scripted.gate.clear()


def test_alone_or_together_the_vectors_are_the_model_s(model: TrimodalModel) -> None:
    async def main() -> tuple[list[Any], list[Any]]:
        async with running(model, token_budget=64) as engine:
            alone = [(await engine.embed(texts(text)))[0] for text in TEXTS]
            together = await asyncio.gather(
                engine.embed(texts(*TEXTS)), engine.embed(texts(*TEXTS))
            )
            return alone, together[1]

    alone, together = asyncio.run(main())
    expected = model.embed(text=TEXTS)["fused"]
    assert_close(np.stack([e.vector for e in alone]), expected, "served-vs-offline")
    assert_close(np.stack([e.vector for e in together]), expected, "served-vs-offline")


def test_every_subset_of_modalities(model: TrimodalModel, png: bytes, wav: bytes) -> None:
    parts: dict[str, Any] = {"image": encoded(png), "text": "red", "audio": encoded(wav)}
    subsets = [
        {k: v for i, (k, v) in enumerate(parts.items()) if bits >> i & 1} for bits in range(1, 8)
    ]

    async def main() -> list[Any]:
        async with running(model) as engine:
            return await engine.embed(parse_inputs(subsets))

    embeddings = asyncio.run(main())
    expected = model.embed(
        image=[png if "image" in subset else None for subset in subsets],
        text=["red" if "text" in subset else None for subset in subsets],
        speech=[wav if "audio" in subset else None for subset in subsets],
    )["fused"]
    assert_close(np.stack([e.vector for e in embeddings]), expected, "served-vs-offline")
    assert model.processor is not None
    sizes = {
        Modality.VISION: model.processor.medium(Modality.VISION, png).num_tokens,
        Modality.TEXT: model.processor.medium(Modality.TEXT, "red").num_tokens,
        Modality.SPEECH: model.processor.medium(Modality.SPEECH, wav).num_tokens,
    }
    assert embeddings[-1].tokens == sizes
    assert embeddings[0].tokens == {Modality.VISION: sizes[Modality.VISION]}


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("\u200b", "empty_input"),
        ("\ud800", "invalid_text"),
        ("red " * 49, "context_length_exceeded"),
        ("x" * 1_000_000, "context_length_exceeded"),
        ({"image": "AAAA"}, "invalid_image"),
        ({"image": "!!"}, "invalid_image"),
        ({"audio": "AAAA"}, "invalid_audio"),
    ],
)
def test_the_bad_input_is_named_and_the_next_request_works(
    model: TrimodalModel, value: Any, code: str
) -> None:
    async def main() -> ServingError:
        async with running(model) as engine:
            with pytest.raises(ServingError) as caught:
                await engine.embed(parse_inputs([*TEXTS[:9], value, "red"]))
            assert len(await engine.embed(texts("red"))) == 1
            return caught.value

    error = asyncio.run(main())
    assert (error.status, error.code, error.param) == (400, code, "input[9]")


def test_the_first_of_several_bad_inputs_is_named(model: TrimodalModel) -> None:
    async def main() -> ServingError:
        async with running(model) as engine:
            with pytest.raises(ServingError) as caught:
                await engine.embed(texts(*TEXTS, "\u200b", *TEXTS, "\ud800"))
            return caught.value

    assert asyncio.run(main()).param == f"input[{len(TEXTS)}]"


def test_a_poisonous_input_harms_no_other_request(scripted: Any) -> None:
    async def main() -> list[Any]:
        async with running(scripted) as engine:
            scripted.raises = lambda sample: sample.num_tokens == poison
            hold(scripted)
            first = asyncio.create_task(engine.embed(texts("red")))
            await entered(scripted)
            requests = [engine.embed(texts("blue", text)) for text in ("red", long, "white")]
            gathering = asyncio.gather(first, *requests, return_exceptions=True)
            await asyncio.to_thread(scripted.gate.set)
            return await gathering

    long = "a red square a red square"
    poison = scripted.processor.medium(Modality.TEXT, long).num_tokens
    results = asyncio.run(main())
    assert [isinstance(result, ServingError) for result in results] == [False, False, True, False]
    assert (results[2].status, results[2].code, results[2].param) == (500, "internal", "input[1]")


def test_a_failure_of_the_processor_is_ours(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> ServingError:
        async with running(scripted) as engine:
            with monkeypatch.context() as patch:
                patch.setattr(scripted.processor.text, "medium", lambda _: 1 / 0)
                with pytest.raises(ServingError) as caught:
                    await engine.embed(texts("red"))
            await engine.embed(texts("red"))
            return caught.value

    error = asyncio.run(main())
    assert (error.status, error.code, error.param) == (500, "internal", "input[0]")
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_a_full_server_turns_requests_away_until_there_is_room(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimodal_serving.engine.QUEUED_BATCHES", 2)

    async def main() -> ServingError:
        async with running(scripted, token_budget=1) as engine:
            hold(scripted)
            first = asyncio.create_task(engine.embed(texts("red")))
            await entered(scripted)
            second = asyncio.create_task(engine.embed(texts("red")))
            await asyncio.sleep(0)  # it goes through the door
            with pytest.raises(ServingError) as caught:
                await engine.embed(texts("red"))
            scripted.gate.set()
            await asyncio.gather(first, second)
            await engine.embed(texts("red"))
            return caught.value

    error = asyncio.run(main())
    assert (error.status, error.code) == (429, "queue_full")
    assert error.retry_after is not None
    assert error.retry_after >= 1


def test_a_cancelled_request_is_not_computed(scripted: Any) -> None:
    async def main() -> None:
        async with running(scripted) as engine:
            hold(scripted)
            first = asyncio.create_task(engine.embed(texts("red")))
            await entered(scripted)
            dropped = asyncio.create_task(engine.embed(texts("a", "b", "c")))
            await asyncio.sleep(0.05)  # it is waiting for the model now
            dropped.cancel()
            last = asyncio.create_task(engine.embed(texts("white")))
            await asyncio.gather(dropped, return_exceptions=True)
            scripted.gate.set()
            await asyncio.gather(first, last)

    asyncio.run(main())
    assert [len(batch) for batch in scripted.batches] == [1, 1, 1]  # warm-up, red, white


async def refusal(engine: Engine) -> tuple[int, str, int | None]:
    with pytest.raises(ServingError) as caught:
        await engine.embed(texts("red"))
    return caught.value.status, caught.value.code, caught.value.retry_after


def test_before_and_after(model: TrimodalModel) -> None:
    async def main() -> None:
        engine = Engine(lambda: model)
        assert await refusal(engine) == (503, "loading", 1)
        await engine.start()
        engine.check()
        assert engine.dimensions == (8, 16)
        await engine.close()
        assert await refusal(engine) == (503, "draining", 1)

    asyncio.run(main())


def test_closing_lets_the_requests_inside_finish(scripted: Any) -> None:
    async def main() -> list[Any]:
        async with running(scripted) as engine:
            hold(scripted)
            inside = asyncio.create_task(engine.embed(texts("red")))
            await entered(scripted)
            closing = asyncio.create_task(engine.close())
            await asyncio.sleep(0)
            with pytest.raises(ServingError, match="the server stops"):
                engine.check()
            scripted.gate.set()
            await closing
            assert inside.done()
            return await inside

    assert len(asyncio.run(main())) == 1


def test_closing_does_not_wait_for_ever(scripted: Any) -> None:
    async def main() -> Any:
        async with running(scripted) as engine:
            hold(scripted)
            inside = asyncio.create_task(engine.embed(texts("red")))
            await entered(scripted)
            await engine.close(drain_seconds=0.01)
            (result,) = await asyncio.gather(inside, return_exceptions=True)
            scripted.gate.set()
            return result

    assert asyncio.run(main()).code == "draining"


def test_a_model_without_processor_is_not_served(model: TrimodalModel) -> None:
    class Bare:
        processor, architecture, config = None, model.architecture, model.config
        embed_samples = model.embed_samples

    with pytest.raises(StorageError, match="no processor"):
        asyncio.run(Engine(Bare).start())


@pytest.mark.parametrize(
    "change",
    [{"vision_input": {"patch_size": 8}}, {"speech_input": {"num_mels": 8}}],
    ids=["patches", "mels"],
)
def test_a_model_with_a_processor_that_does_not_fit_is_not_served(
    model: TrimodalModel, change: dict[str, dict[str, int]]
) -> None:
    architecture = model.architecture
    (name, fields), *_ = change.items()
    changed = replace(architecture, **{name: replace(getattr(architecture, name), **fields)})

    class Misfit:
        architecture, config = model.architecture, model.config
        embed_samples = model.embed_samples
        processor = TrimodalProcessor(changed, tiny_tokenizer())

    with pytest.raises(StorageError, match="the model fails on what its processor makes"):
        asyncio.run(Engine(Misfit).start())


def test_a_model_with_broken_weights_is_not_served(model_folder: Path) -> None:
    broken = trimodal.load(model_folder)
    for parameter in broken.parameters():
        torch.nn.init.constant_(parameter, np.nan)
    with pytest.raises(NumericError, match="no finite vector"):
        asyncio.run(Engine(lambda: broken).start())
