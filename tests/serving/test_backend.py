"""The messages of a backend, with the backend in this process."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from trimodal.batch import Modality
from trimodal.errors import ConfigError, StorageError
from trimodal.models import TrimodalModel
from trimodal.testing import assert_close
from trimodal_serving import backend
from trimodal_serving.backend import Backend, Cost, Setting, load_model
from trimodal_serving.channel import Channel
from trimodal_serving.inputs import Input, parse_inputs
from trimodal_serving.messages import Opened, Parcel
from trimodal_serving.orders import Order

WHOSE = {"tenant": "alice", "priority": "interactive", "request_id": "r1"}


@asynccontextmanager
async def talking(load: Callable[[], Any]) -> AsyncIterator[Channel]:
    ours, theirs = socket.socketpair()
    running = asyncio.create_task(Backend(await Channel.open(theirs), load, 16_384).run())
    channel = await Channel.open(ours)
    yield channel
    channel.close()
    await running


async def heard(channel: Channel, *kinds: str) -> tuple[dict[str, Any], list[bytes]]:
    """The next message of one of these kinds."""
    while True:
        tree, buffers = await channel.receive()
        if tree["kind"] in kinds:
            return tree, buffers


def embed(channel: Channel, number: int, *inputs: Any) -> None:
    parcel = Parcel()
    tree = parcel.inputs(parse_inputs(list(inputs), None))
    message = {"kind": "embed", "number": number, "inputs": tree, **WHOSE}
    channel.send(message, parcel.buffers)


def test_it_says_what_it_has_loaded_and_answers(model: TrimodalModel) -> None:
    async def main() -> None:
        async with talking(lambda: model) as channel:
            ready, _ = await heard(channel, "ready", "failed")
            assert ready["generates"] == [*model.config.generates, "answers"]
            embed(channel, 5, "red", "blue")
            tree, buffers = await heard(channel, "result", "error")
            vectors = Opened(buffers).array(tree["result"]["vectors"])
            assert_close(vectors, model.embed(text=["red", "blue"])["text"], "served-vs-offline")
            embed(channel, 6, "red", {"image": "AAAA"})
            error = (await heard(channel, "error"))[0]["error"]
            assert (error["code"], error["param"]) == ("invalid_image", "input[1]")
            beat, _ = await heard(channel, "beat")
            assert beat["batch_seconds"] == 0
            assert "decode_seconds" in [name for name, _ in beat["measured"]]

    asyncio.run(main())


def test_what_a_request_costs_is_told_unless_it_is_answered(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with talking(lambda: scripted) as channel:
            await heard(channel, "ready")
            monkeypatch.setattr(backend, "COST_SECONDS", 600.0)
            embed(channel, 1, "red")
            done = (await heard(channel, "cost", "result"))[0]
            assert done["kind"] == "result"
            monkeypatch.setattr(backend, "COST_SECONDS", 0.0)
            scripted.gate.clear()
            embed(channel, 2, "red", "red")
            (modality, count), cost = done["result"]["tokens"][0][0], 0
            assert modality == Modality.TEXT
            async with asyncio.timeout(60):
                while cost != 2 * count:  # before that, perhaps, the most that it could cost
                    cost = (await heard(channel, "cost", "result"))[0]["tokens"]
            scripted.gate.set()
            assert (await heard(channel, "cost", "result"))[0]["kind"] == "result"

    asyncio.run(main())


def test_of_what_was_known_the_last_is_told() -> None:
    class Sent(list[Any]):
        def send(self, tree: dict[str, Any]) -> None:
            self.append(dict(tree))

    async def main() -> None:
        sent = Sent()
        cost = Cost(cast(Channel, sent), 7, 0.01)
        for tokens in (100, 3):
            cost.known(tokens)
        await asyncio.sleep(0.05)
        cost.known(2)
        assert [one["tokens"] for one in sent] == [3, 2]
        other = Cost(cast(Channel, sent), 8, 0.01)
        other.known(1)
        other.forget()
        await asyncio.sleep(0.05)
        assert len(sent) == 2
        Cost(cast(Channel, sent), 9, 0.0).known(4)
        assert sent[2:] == [{"kind": "cost", "number": 9, "tokens": 4}]

    asyncio.run(main())


def test_texts_come_piece_by_piece(model: TrimodalModel) -> None:
    async def main() -> None:
        async with talking(lambda: model) as channel:
            await heard(channel, "ready")
            item = Input("input", {Modality.TEXT: "red"})
            parcel = Parcel()
            tree = parcel.order(Order(item=item, to=Modality.TEXT, lang="zh"))
            channel.send({"kind": "stream", "number": 1, "order": tree, **WHOSE}, parcel.buffers)
            pieces = ""
            first, _ = await heard(channel, "cost", "piece", "result")
            assert first["kind"] == "cost", "of which the server has held next to nothing"
            while True:
                said, buffers = await heard(channel, "piece", "result", "error")
                if said["kind"] != "piece":
                    break
                pieces += said["piece"]
            assert Opened(buffers).made(said["result"]).outputs == [pieces]

    asyncio.run(main())


def test_what_is_cancelled_is_not_computed(scripted: Any) -> None:
    async def main() -> None:
        async with talking(lambda: scripted) as channel:
            await heard(channel, "ready")
            scripted.batches.clear()
            scripted.entered.clear()
            scripted.gate.clear()
            embed(channel, 1, "red")
            assert await asyncio.to_thread(scripted.entered.wait, 20)
            embed(channel, 2, "blue")
            while (await heard(channel, "cost"))[0]["number"] != 2:
                pass
            channel.send({"kind": "cancel", "number": 2})
            embed(channel, 3, "white", "black")
            while (await heard(channel, "cost"))[0]["number"] != 3:
                pass
            beat: dict[str, Any] = {"batch_seconds": 0.0}
            while not beat["batch_seconds"]:
                beat, _ = await heard(channel, "beat")
            scripted.gate.set()
            done = [(await heard(channel, "result", "error"))[0]["number"] for _ in range(2)]
            assert sorted(done) == [1, 3]
            # the gate made the model look slow, so the two may come one by one
            computed = [sample for batch in scripted.batches for sample in batch]
            assert computed == ["input[0]", "input[0]", "input[1]"]

    asyncio.run(main())


def test_beats_say_on_how_many_batches_the_model_failed(model: TrimodalModel) -> None:
    async def main() -> list[Any]:
        ours, theirs = socket.socketpair()
        backend = Backend(await Channel.open(theirs), lambda: model, 16_384)
        backend._meter("failed_batches", 2)
        running = asyncio.create_task(backend.run())
        channel = await Channel.open(ours)
        beat, _ = await heard(channel, "beat")
        channel.close()
        await running
        return [beat["failed_batches"], beat["measured"]]

    assert asyncio.run(main()) == [2, []]


def test_a_model_that_cannot_be_loaded_is_told() -> None:
    def load() -> Any:
        raise StorageError("the folder is empty")

    async def main() -> None:
        async with talking(load) as channel:
            failed, _ = await heard(channel, "ready", "failed")
            assert (failed["code"], failed["message"]) == (74, "the folder is empty")

    asyncio.run(main())


def test_a_device_that_is_not_there_is_refused(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="no usable CUDA device"):
        load_model(Setting(str(model_folder), "cuda"))
    assert load_model(Setting(str(model_folder))).architecture
