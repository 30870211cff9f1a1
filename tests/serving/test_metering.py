import asyncio
from typing import Any

from trimodal.batch import Modality
from trimodal.models import TrimodalModel
from trimodal_serving.caller import Caller, acting
from trimodal_serving.engine import Engine
from trimodal_serving.inputs import Input, parse_inputs
from trimodal_serving.media import RawMedium
from trimodal_serving.metering import Metered
from trimodal_serving.orders import Order


def test_what_is_read_and_made_is_counted(model: TrimodalModel, png: bytes) -> None:
    measured: list[str] = []
    item = Input("input", {Modality.TEXT: "red"})

    async def use() -> list[Caller]:
        service = Metered(Engine(lambda: model), lambda name, _: measured.append(name))
        await service.start()
        callers: list[Caller] = []

        async def acting_as(work: Any) -> None:
            with acting(Caller("alice")) as caller:
                await work(service)
            callers.append(caller)

        async def stream(service: Metered) -> None:
            order = Order(item=item, to=Modality.TEXT, lang="zh")
            assert [piece async for piece in service.stream(order)]

        await acting_as(lambda service: service.embed(parse_inputs(["red", "red"], None)))
        await acting_as(lambda s: s.generate(Order(item=item, to=Modality.VISION, seeds=(0, 1))))
        await acting_as(lambda s: s.generate(Order(item=item, to=Modality.SPEECH, lang="en")))
        await acting_as(stream)
        picture = Input("data", {Modality.VISION: RawMedium(Modality.VISION, png)})
        await acting_as(lambda service: service.encode(picture))
        await acting_as(lambda service: service.decode(Modality.VISION, [[1, 2]]))
        await acting_as(lambda service: service.decode(Modality.SPEECH, [[1, 2]]))
        await service.close()
        return callers

    embedded, drawn, spoken, written, *coded = (caller.usage for caller in asyncio.run(use()))
    assert model.processor is not None
    red = model.processor.medium(Modality.TEXT, "red").num_tokens
    assert (embedded.tokens, embedded.pixels, embedded.audio_seconds) == (2 * red, 0, 0)
    height, width = model.architecture.picture_size
    assert drawn.pixels == 2 * height * width
    assert drawn.tokens > red
    assert spoken.audio_seconds > 0
    assert written.tokens > red
    assert "time_to_first_token_seconds" in measured
    encoded, pictured, voiced = coded
    patches = model.architecture.vision_input.patch_size**2
    assert encoded.tokens > 0
    assert encoded.pixels == encoded.tokens * patches
    assert (pictured.tokens, voiced.tokens) == (2, 2)
    assert pictured.pixels > 0
    assert voiced.audio_seconds > 0
