"""POST /v1/tokens/encode and /v1/tokens/decode: media to the model's codes and back.

reply = await encode(call)
"""

import asyncio
import base64
from typing import Any

import numpy as np

from trimodal.batch import Modality
from trimodal_serving import sounds
from trimodal_serving.calls import Call
from trimodal_serving.fields import Fields
from trimodal_serving.inputs import NAMES, Input, Reading, parse_input
from trimodal_serving.pictures import FORMATS
from trimodal_serving.replies import Reply, rendered
from trimodal_serving.vectors import LABELS


async def encode(call: Call) -> Reply:
    """The codes of a medium.

    Raises:
        ServingError: the request cannot be served.
    """
    call.engine.check()
    item = await asyncio.to_thread(_medium, call)
    codes = await call.engine.encode(item)
    (modality,) = item.media
    return rendered(
        {
            "object": "tokens",
            "model": call.served,
            "modality": LABELS[modality],
            "codes": codes.rows,
            "codebook_sizes": [codes.size],
            "usage": {"prompt_tokens": codes.tokens, "total_tokens": codes.tokens},
        }
    )


async def decode(call: Call) -> Reply:
    """The medium of some codes.

    Raises:
        ServingError: the request cannot be served.
    """
    call.engine.check()
    modality, codes, form = await asyncio.to_thread(_codes, call)
    made = await call.engine.decode(modality, codes)
    tree: dict[str, Any] = {
        "object": "medium",
        "model": call.served,
        "modality": LABELS[modality],
        "data": made,
    }
    if isinstance(made, np.ndarray):
        rate = call.engine.architecture.speech_input.sample_rate
        data = await asyncio.to_thread(_file, made, form, rate)
        tree |= {"data": base64.b64encode(data).decode(), "format": form}
    return rendered(tree)


def _medium(call: Call) -> Input:
    fields = call.fields()
    fields.model(call.served)
    modality = _modality(fields)
    item = parse_input(fields.need("data"), "data", Reading(modality))
    fields.end()
    return item


def _modality(fields: Fields) -> Modality:
    name = fields.choice("modality", NAMES)
    if name is None:
        raise fields.refusal("modality", "missing_field", "is missing")
    return NAMES[name]


def _codes(call: Call) -> tuple[Modality, list[list[int]], str]:
    fields = call.fields()
    fields.model(call.served)
    modality = _modality(fields)
    codes = fields.need("codes")
    known = {Modality.VISION: FORMATS, Modality.SPEECH: sounds.FORMATS, Modality.TEXT: ()}
    default = {Modality.VISION: "png", Modality.SPEECH: "wav", Modality.TEXT: ""}[modality]
    form = fields.choice("format", known[modality], None, "unsupported_format") or default
    fields.end()
    rows = isinstance(codes, list) and bool(codes) and all(isinstance(row, list) for row in codes)
    if not rows or any(type(code) is not int for row in codes for code in row):
        raise fields.refusal("codes", "invalid_codes", "must be a list of lists of whole numbers")
    return modality, codes, form


def _file(made: np.ndarray, form: str, rate: int) -> bytes:
    from trimodal.processors.encoding import picture_bytes

    if made.ndim == 3:
        return picture_bytes(made, FORMATS[form])
    return sounds.encode(made, rate, form)[0]
