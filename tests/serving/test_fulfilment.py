import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from trimodal.batch import Modality
from trimodal.models import TrimodalModel
from trimodal.models.generation import default_decoding
from trimodal.testing import assert_close
from trimodal_serving.engine import Engine
from trimodal_serving.errors import ServingError
from trimodal_serving.inputs import Input, parse_inputs
from trimodal_serving.media import RawMedium
from trimodal_serving.orders import Order


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


async def entered(scripted: Any) -> None:
    """Wait until a batch has reached the model."""
    assert await asyncio.to_thread(scripted.entered.wait, 20)
    scripted.entered.clear()


def hold(scripted: Any) -> None:
    """Let the next batch reach the model and wait there."""
    scripted.entered.clear()
    scripted.gate.clear()


def condition(**media: Any) -> Input:
    names = {"image": Modality.VISION, "text": Modality.TEXT, "speech": Modality.SPEECH}
    return Input(
        "input",
        {
            names[name]: source if name == "text" else RawMedium(names[name], source)
            for name, source in media.items()
        },
    )


def generated(model: Any, *orders: Order) -> list[Any]:
    """What the orders make, all at once."""

    async def main() -> list[Any]:
        async with running(model) as engine:
            made = [engine.generate(order) for order in orders]
            return await asyncio.gather(*made, return_exceptions=True)

    return asyncio.run(main())


@pytest.mark.parametrize("to", Modality)
@pytest.mark.parametrize("names", [("text",), ("image",), ("speech",), ("image", "text", "speech")])
def test_alone_or_together_outputs_are_the_model_s(
    model: TrimodalModel, png: bytes, wav: bytes, to: Modality, names: tuple[str, ...]
) -> None:
    media = {"image": png, "text": "red", "speech": wav}
    media = {name: media[name] for name in names}
    short = {"max_tokens": 8}
    order = Order(item=condition(**media), to=to, lang="zh", seeds=range(3, 6), decoding=short)
    other = Order(item=condition(text="blue"), to=to, lang="zh", seeds=[9], decoding=short)
    columns: dict[str, Any] = {name: [source] * 3 for name, source in media.items()}
    decoding = replace(default_decoding(to), max_tokens=8)
    expected: Any = model.generate(**columns, to=to.data_name, lang="zh", seed=3, decoding=decoding)
    for made in (generated(model, order)[0], generated(model, other, order)[1]):
        for output, one in zip(made.outputs, expected, strict=True):
            if to is Modality.SPEECH:  # Griffin and Lim's rounding grows with every iteration
                assert output.shape == one.shape
                assert_close(output, one, "served-speech")
            else:
                assert np.array_equal(output, one)
        assert made.new_tokens > 0
        assert {m.data_name for m in made.tokens} == set(names)
        assert (made.seconds > 0) == ("speech" in names)


def test_a_text_is_completed(model: TrimodalModel, png: bytes) -> None:
    alone = Order(item=condition(), to=Modality.TEXT, begun="the square", lang="en")
    seen = replace(alone, item=condition(image=png))
    made = generated(model, alone, seen)
    texts = [
        model.generate(complete=["the square"], to="text", lang="en")[0],
        model.generate(complete=["the square"], image=[png], to="text", lang="en")[0],
    ]
    assert [one.outputs[0] for one in made] == texts
    assert all(str(text).startswith("the square") for text in texts)
    assert made[0].tokens.keys() == {Modality.TEXT}


def test_a_text_that_is_as_long_as_it_may_be_is_cut(model: TrimodalModel) -> None:
    order = Order(item=condition(text="red"), to=Modality.TEXT, decoding={"max_tokens": 2**31})
    short = replace(order, decoding={"max_tokens": 3})
    ended = replace(order, decoding={"temperature": 2.0}, seeds=[1])
    longest, three, last = generated(model, order, short, ended)
    assert (three.new_tokens, three.cut) == (3, True)
    assert longest.new_tokens <= 64
    assert last.cut == (last.new_tokens == 64)


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"to": Modality.VISION, "size": (10, 8)}, "invalid_size", "size"),
        ({"to": Modality.VISION, "size": (4000, 4000)}, "invalid_size", "size"),
        ({"to": Modality.SPEECH, "answer": True}, "unsupported_operation", "input"),
        ({"item": condition(text="x" * 99_999)}, "context_length_exceeded", "input"),
        ({"item": condition(image=b"GIF89a")}, "invalid_image", "input"),
        ({"item": condition(), "begun": "x" * 99_999}, "context_length_exceeded", "input"),
        ({"item": condition(), "begun": "red " * 99}, "context_length_exceeded", "input"),
    ],
)
def test_an_order_that_cannot_be_is_named(
    model: TrimodalModel, changes: dict[str, Any], code: str, param: str
) -> None:
    order = Order(item=condition(text="red"), to=Modality.TEXT)
    refused, fine = generated(model, replace(order, **changes), order)
    assert (refused.status, refused.code, refused.param) == (400, code, param)
    assert fine.outputs == model.generate(text=["red"], to="text")


@pytest.mark.parametrize("learnt", [[], ["text"]])
def test_a_model_generates_what_it_learnt(
    model: TrimodalModel, monkeypatch: pytest.MonkeyPatch, learnt: list[str]
) -> None:
    monkeypatch.setattr(model.config, "generates", learnt)
    (refused,) = generated(model, Order(item=condition(text="red"), to=Modality.VISION))
    assert (refused.status, refused.code) == (400, "unsupported_operation")
    assert f"it generates {learnt[0] if learnt else 'nothing'}" in refused.message


def test_a_stream_is_the_text_in_pieces_of_whole_characters(model: TrimodalModel) -> None:
    order = Order(
        item=condition(text="red"),
        to=Modality.TEXT,
        decoding={"temperature": 1.5, "max_tokens": 48},
        seeds=[4],
    )

    async def main() -> tuple[list[Any], Any]:
        async with running(model) as engine:
            return [piece async for piece in engine.stream(order)], await engine.generate(order)

    (*pieces, last), made = asyncio.run(main())
    assert "".join(pieces) == made.outputs[0] == last.outputs[0]
    assert len(pieces) > 10
    assert last.new_tokens == made.new_tokens


def test_a_character_is_held_back_until_all_its_bytes_are_there(
    model: TrimodalModel, scripted: Any
) -> None:
    assert model.processor is not None
    text = model.processor.text
    ids = text.medium("红日ab").features.tolist()
    wanted = [i - text.vocabulary.text.start + 1 for i in ids]

    def continuations(h_ND: torch.Tensor) -> torch.Tensor:
        scripted.steps += 1
        logits = torch.zeros(len(h_ND), 1 + text.vocabulary.text.size)
        logits[:, wanted[scripted.steps - 1] if scripted.steps <= len(wanted) else 0] = 100.0
        return logits

    scripted.continuations = continuations

    async def main() -> list[Any]:
        async with running(scripted) as engine:
            order = Order(item=condition(text="red"), to=Modality.TEXT)
            return [piece async for piece in engine.stream(order)]

    *pieces, _ = asyncio.run(main())
    assert "".join(pieces) == "红日ab"
    assert len(ids) > len(pieces)  # a character of the tiny tokenizer takes several pieces


EARLY = {"steps": 16, "schedule": "linear", "earliness": 100.0}
"""One code after the other."""
SPOKEN = Order(item=condition(text="red"), to=Modality.SPEECH, lang="en", decoding=EARLY, seeds=[4])


@pytest.mark.parametrize("decoding", [{}, {"schedule": "linear", "earliness": 1.0}, EARLY])
def test_a_stream_is_the_sound_in_pieces_that_do_not_change(
    voiced: TrimodalModel, decoding: dict[str, Any]
) -> None:
    order = replace(SPOKEN, decoding=decoding)

    async def main() -> tuple[list[Any], Any]:
        async with running(voiced) as engine:
            return [piece async for piece in engine.stream(order)], await engine.generate(order)

    (*pieces, last), made = asyncio.run(main())
    assert np.array_equal(np.concatenate(pieces), made.outputs[0])
    assert np.array_equal(made.outputs[0], last.outputs[0])
    assert all(len(piece) for piece in pieces)
    if decoding is EARLY:  # sound needs 10 codes, of which the model has one more after each step
        assert len(pieces) == 6


def test_the_first_sound_comes_before_the_last_step(voiced: Any, scripted: Any) -> None:
    async def main() -> None:
        async with running(scripted) as engine:
            stream: Any = engine.stream(SPOKEN)
            assert len(await anext(stream)) > 0
            assert scripted.steps < 15
            await stream.aclose()

    asyncio.run(main())


def test_without_a_vocoder_speech_comes_in_one_piece(model: TrimodalModel) -> None:
    async def main() -> list[Any]:
        async with running(model) as engine:
            return [piece async for piece in engine.stream(SPOKEN)]

    sound, made = asyncio.run(main())
    assert np.array_equal(sound, made.outputs[0])


def test_an_utterance_is_shown_before_it_is_done(voiced: TrimodalModel) -> None:
    order = replace(SPOKEN, partial=3)

    async def main() -> list[Any]:
        async with running(voiced) as engine:
            return [piece async for piece in engine.stream(order)]

    *drafts, made = asyncio.run(main())
    assert [draft.shape for draft in drafts] == [made.outputs[0].shape] * 3
    assert not any(np.array_equal(draft, made.outputs[0]) for draft in drafts)


def test_speech_that_may_be_drawn_again_comes_in_one_piece(
    voiced: TrimodalModel, wav: bytes
) -> None:
    again = replace(SPOKEN, item=condition(speech=wav))
    once = replace(again, decoding=EARLY | {"redraws": 0})

    async def main() -> list[list[Any]]:
        async with running(voiced) as engine:
            return [[piece async for piece in engine.stream(order)] for order in (again, once)]

    assert [len(pieces) for pieces in asyncio.run(main())] == [2, 7]


@pytest.mark.parametrize("to", [Modality.TEXT, Modality.SPEECH])
def test_a_stream_that_nobody_reads_is_given_up(voiced: Any, scripted: Any, to: Modality) -> None:
    order = replace(SPOKEN, to=to, decoding=EARLY if to is Modality.SPEECH else {})

    async def main() -> None:
        async with running(scripted) as engine:
            stream: Any = engine.stream(order)
            await anext(stream)
            hold(scripted)
            await stream.aclose()
            scripted.gate.set()
            await engine.embed(texts("red"))
            steps = scripted.steps
            await engine.embed(texts("red"))
            await asyncio.sleep(0.05)  # in which it would go on
            assert scripted.steps == steps

    asyncio.run(main())


def test_a_text_that_fails_is_a_failure_of_ours(scripted: Any) -> None:
    scripted.fails_at = 3
    order = Order(item=condition(text="red"), to=Modality.TEXT)
    (failed,) = generated(scripted, order)
    assert (failed.status, failed.code, failed.param) == (500, "internal", "input")
    assert "secret" in str(failed.__cause__)
    assert generated(scripted, order)[0].new_tokens > 0


def test_texts_are_embedded_while_a_text_is_written(scripted: Any) -> None:
    order = Order(item=condition(text="red"), to=Modality.TEXT)

    async def main() -> int:
        async with running(scripted) as engine:
            scripted.entered.clear()
            writing = asyncio.create_task(engine.generate(order))
            await entered(scripted)
            await engine.embed(texts("red"))
            assert not writing.done()
            steps = scripted.steps
            await writing
            return steps

    assert asyncio.run(main()) < 64


def test_generation_is_admitted_like_everything(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimodal_serving.engine.QUEUED_BATCHES", 1)
    order = Order(item=condition(text="red"), to=Modality.TEXT)

    async def main() -> ServingError:
        async with running(scripted, token_budget=1) as engine:
            hold(scripted)
            first = asyncio.create_task(engine.generate(order))
            await entered(scripted)
            with pytest.raises(ServingError) as caught:
                await engine.generate(order)
            scripted.gate.set()
            await first
            await engine.generate(order)
            return caught.value

    assert asyncio.run(main()).code == "queue_full"
