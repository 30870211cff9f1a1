"""POST /embed and GET /info: the shape of Text Embeddings Inference.

reply = await answer(call)
"""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version

from trimodal_serving.calls import Call
from trimodal_serving.fields import Fields
from trimodal_serving.inputs import MAX_INPUTS, Input, Keep, Reading, parse_inputs
from trimodal_serving.replies import Reply, rendered
from trimodal_serving.vectors import embed, quantised, take_dimensions, written_rows

KEEPS: dict[str, Keep] = {"Right": "start", "Left": "end"}
"""What remains of a text of which a side is cut off."""


async def answer(call: Call) -> Reply:
    """Embed inputs.

    Raises:
        ServingError: the request cannot be served.
    """
    dimensions = call.engine.dimensions
    inputs, length = await asyncio.to_thread(lambda: parse(call.fields(), dimensions))
    embedded = await embed(call.engine, inputs, length)
    rows = quantised(embedded.vectors_NE, "float32")
    return Reply((await asyncio.to_thread(written_rows, rows)).encode())


def parse(fields: Fields, dimensions: Sequence[int]) -> tuple[list[Input], int]:
    """Read a request: inputs, and the length of their vectors.

    Raises:
        ServingError: a field that is wrong, missing, unknown or not supported.
    """
    length = take_dimensions(fields, dimensions, "dimensions")
    fields.neutral("the vectors of this model have unit norm", normalize=(True,))
    fields.neutral("this model has no prompts", prompt_name=())
    side = fields.choice("truncation_direction", KEEPS, "Right") or "Right"
    keep = KEEPS[side] if fields.flag("truncate") else None
    inputs = parse_inputs(fields.need("inputs"), Reading(name="inputs", keep=keep))
    fields.end()
    return inputs, length


async def info(call: Call) -> Reply:
    """What is served.

    Raises:
        ServingError: the server is not ready.
    """
    return rendered(
        {
            "model_id": call.served,
            "max_input_length": call.engine.architecture.max_text_tokens,
            "max_client_batch_size": MAX_INPUTS,
            "version": version("trimodal"),
        }
    )
