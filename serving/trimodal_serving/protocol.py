"""The wire format of /v1/embeddings: bytes of a request to inputs, vectors to bytes of an answer.

request = parse_request(body, served="demo", dimensions=(64, 128))
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimodal.batch import Modality
from trimodal_serving.errors import ServingError, model_not_found
from trimodal_serving.fields import parse_json, shown
from trimodal_serving.inputs import NAMES, Input, parse_inputs

FIELDS = {"model", "input", "modality", "encoding_format", "dimensions", "user"}
LABELS = {Modality.VISION: "image", Modality.TEXT: "text", Modality.SPEECH: "audio"}


@dataclass(frozen=True)
class EmbeddingRequest:
    """A request whose form is right; the media in it have not been opened yet."""

    inputs: Sequence[Input]
    dimensions: int
    base64: bool


def parse_request(body: bytes, served: str, dimensions: Sequence[int]) -> EmbeddingRequest:
    """Read the body of a request.

    Args:
        body: JSON as UTF-8.
        served: the only model name that is answered.
        dimensions: the lengths that an embedding may have, in rising order.

    Raises:
        ServingError: not JSON, a field that is wrong, missing, unknown or there twice, or another
            model.
    """
    tree = parse_json(body)
    if not isinstance(tree, dict):
        raise ServingError(400, "invalid_type", "the request must be a JSON object")
    for key in tree:
        if key not in FIELDS:
            param = key if "`" in shown(key) else None
            raise ServingError(
                400, "unknown_field", f"the request has {shown(key)}, which is unknown", param=param
            )
    fields = {key: value for key, value in tree.items() if value is not None}
    for key in ("model", "input"):
        if key not in fields:
            raise ServingError(400, "missing_field", f"`{key}` is missing", param=key)
    if fields["model"] != served:
        raise model_not_found(served)
    name = _choice(fields, "modality", tuple(NAMES), None)
    return EmbeddingRequest(
        parse_inputs(fields["input"], NAMES[name] if name else None),
        _dimensions(fields.get("dimensions", dimensions[-1]), dimensions),
        _choice(fields, "encoding_format", ("float", "base64"), "float") == "base64",
    )


def _choice(
    fields: dict[str, Any], key: str, known: tuple[str, ...], default: str | None
) -> str | None:
    value = fields.get(key, default)
    if value is not None and value not in known:
        message = f"`{key}` must be one of {', '.join(known)}"
        raise ServingError(400, f"invalid_{key}", message, param=key)
    return value


def _dimensions(value: Any, known: Sequence[int]) -> int:
    if type(value) is not int or value not in known:
        listed = ", ".join(map(str, known))
        raise ServingError(
            400,
            "invalid_dimensions",
            f"`dimensions` of this model must be one of {listed}",
            param="dimensions",
        )
    return value


def render_answer(
    request: EmbeddingRequest,
    served: str,
    vectors: np.ndarray,
    tokens: Sequence[Mapping[Modality, int]],
) -> bytes:
    """The body of the answer.

    Args:
        request: what is answered.
        served: the name of the model.
        vectors: (N, dimensions) float32, finite, one for each input.
        tokens: of each input the tokens by modality.
    """
    data = ",".join(
        f'{{"object":"embedding","index":{i},"embedding":{_encode(vector, request.base64)},'
        f'"modality":"{_label(item)}"}}'
        for i, (vector, item) in enumerate(zip(vectors, request.inputs, strict=True))
    )
    sums = {m: sum(counts.get(m, 0) for counts in tokens) for m in Modality}
    total = sum(sums.values())
    usage = {
        "prompt_tokens": total,
        "total_tokens": total,
        "prompt_tokens_details": {f"{LABELS[m]}_tokens": sums[m] for m in Modality},
    }
    tail = f'"model":{json.dumps(served)},"usage":{json.dumps(usage)}'
    return f'{{"object":"list","data":[{data}],{tail}}}'.encode()


def _label(item: Input) -> str:
    return LABELS[next(iter(item.media))] if len(item.media) == 1 else "fused"


def _encode(vector: np.ndarray, as_base64: bool) -> str:
    if as_base64:
        return f'"{base64.b64encode(vector.astype("<f4").tobytes()).decode()}"'
    # nine digits bring a float32 back exactly, and are half of what json.dumps would write
    return f"[{','.join(['%.9g'] * len(vector)) % tuple(vector.tolist())}]"
