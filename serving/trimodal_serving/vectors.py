"""Inputs to vectors in the number types and writings of every wire shape; there is no second way.

embedded = await embed(engine, inputs, dimensions=64)
body = written(quantised(embedded.vectors_NE, "int8")[0], as_base64=False)
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import orjson

from trimodal.batch import Modality
from trimodal.vectors import cut
from trimodal_serving.errors import ServingError, nonfinite
from trimodal_serving.fields import Fields
from trimodal_serving.inputs import Input

if TYPE_CHECKING:
    from trimodal_serving.service import Service

DTYPES = ("float32", "int8", "uint8", "binary", "ubinary")
LABELS = {Modality.VISION: "image", Modality.TEXT: "text", Modality.SPEECH: "audio"}


@dataclass(frozen=True)
class Embedded:
    """The answer to the inputs of one request."""

    inputs: Sequence[Input]
    vectors_NE: np.ndarray
    """Float32, unit norm."""
    tokens: Sequence[Mapping[Modality, int]]
    """Of each input, by modality."""

    @property
    def sums(self) -> dict[Modality, int]:
        """Tokens over all inputs, by modality."""
        return {m: sum(counts.get(m, 0) for counts in self.tokens) for m in Modality}

    @property
    def total(self) -> int:
        """Tokens over all inputs."""
        return sum(self.sums.values())


async def embed(
    engine: "Service", inputs: Sequence[Input], dimensions: int | None = None
) -> Embedded:
    """Embed inputs; cancelling this drops what is not being computed already.

    Args:
        engine: what computes.
        inputs: one for each vector.
        dimensions: the first components, which are brought back to unit norm; None keeps all.

    Raises:
        ServingError: not ready, full, or an input that cannot be embedded; `param` says which.
    """
    embeddings = await engine.embed(inputs)
    vectors = np.stack([embedding.vector for embedding in embeddings])
    if dimensions is not None and dimensions < vectors.shape[1]:
        vectors = cut(vectors, dimensions)
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if broken.size:  # whole ones are looked at where they are computed
            raise nonfinite(inputs[int(broken[0])].where)
    return Embedded(inputs, vectors, [embedding.tokens for embedding in embeddings])


def label(item: Input) -> str:
    """`image`, `text`, `audio`, or `fused` if an input holds several."""
    return LABELS[next(iter(item.media))] if len(item.media) == 1 else "fused"


def take_dimensions(fields: Fields, known: Sequence[int], *names: str) -> int:
    """The length of vectors, under the first of several names that is there.

    Raises:
        ServingError: none that the model was trained to be cut at.
    """
    for name in names:
        value = fields.take(name)
        if value is None:
            continue
        if type(value) is not int or value not in known:
            listed = ", ".join(map(str, known))
            problem = f"of this model must be one of {listed}"
            raise fields.refusal(name, "invalid_dimensions", problem)
        return value
    return known[-1]


def check_packs(dimensions: int, dtype: str, param: str) -> None:
    """Return if vectors of a length have the number type.

    Raises:
        ServingError: eight components are a byte, and it is no multiple of eight.
    """
    if dtype in ("binary", "ubinary") and dimensions % 8:
        message = f"`{param}`: {dtype} needs dimensions that are a multiple of 8"
        raise ServingError(400, "invalid_dimensions", message, param=param)


def quantised(vectors_NE: np.ndarray, dtype: str) -> np.ndarray:
    """Vectors in one of `DTYPES`.

    `int8` scales each vector so that its largest component is 127, which leaves its direction as it
    is up to rounding; `uint8` is that plus 128. `ubinary` has a bit for each component, 1 where it
    is not negative, the first in the highest bit of the first byte; `binary` is that less 128.
    """
    if dtype == "float32":
        return vectors_NE.astype("<f4", copy=False)
    if dtype in ("int8", "uint8"):
        largest = np.abs(vectors_NE).max(axis=1, keepdims=True)
        scaled = np.rint(vectors_NE / largest * 127).astype(np.int16)
        return scaled.astype(np.int8) if dtype == "int8" else (scaled + 128).astype(np.uint8)
    bits = np.packbits(vectors_NE >= 0, axis=1)
    return bits if dtype == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)


def written(vector: np.ndarray, as_base64: bool = False) -> str:
    """A vector as JSON: a list of numbers, or a string with its bytes, little-endian."""
    if as_base64:
        return f'"{base64.b64encode(vector.tobytes()).decode()}"'
    # the fewest digits that bring a float32 back exactly, and a tenth of the time of Python's own
    return orjson.dumps(np.ascontiguousarray(vector), option=orjson.OPT_SERIALIZE_NUMPY).decode()


def written_rows(rows: np.ndarray, as_base64: bool = False) -> str:
    """Vectors as a JSON list."""
    return f"[{','.join(written(row, as_base64) for row in rows)}]"
