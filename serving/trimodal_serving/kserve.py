"""The KServe V2 protocol as Triton's clients speak it: tensors in JSON, or as bytes behind it.

reply = await infer(call)
"""

import asyncio
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from trimodal_serving.calls import Call
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields, check_json, parse_json
from trimodal_serving.inputs import NAMES, Input, Reading, Source, check_numbers, parse_input
from trimodal_serving.media import RawMedium
from trimodal_serving.replies import Reply, rendered
from trimodal_serving.vectors import Embedded, embed, take_dimensions

HEADER = "inference-header-content-length"
"""The header with the length of the JSON, if bytes of tensors follow it."""
TENSORS = ("text", "image", "audio")
OUTPUT = "embedding"


@dataclass(frozen=True)
class InferRequest:
    """A request whose form is right; the media in it have not been opened yet."""

    id: str | None
    inputs: list[Input]
    dimensions: int
    binary: bool
    """Whether the vectors are wanted as bytes."""


async def live(call: Call) -> Reply:
    """The process lives."""
    return rendered({"live": True})


async def ready(call: Call) -> Reply:
    """Requests are answered, whatever the model.

    Raises:
        ServingError: they are not.
    """
    call.check()
    return rendered({"ready": True})


async def server(call: Call) -> Reply:
    """What this server is."""
    extensions = ["binary_tensor_data"]
    return rendered({"name": "trimodal", "version": version("trimodal"), "extensions": extensions})


async def model_ready(call: Call) -> Reply:
    """The model answers.

    Raises:
        ServingError: it does not.
    """
    call.engine.check()
    return rendered({"name": call.served, "ready": True})


async def model(call: Call) -> Reply:
    """The tensors of the model.

    Raises:
        ServingError: it is not ready.
    """
    return rendered(
        {
            "name": call.served,
            "versions": ["1"],
            "platform": "trimodal",
            "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in TENSORS],
            "outputs": [
                {"name": OUTPUT, "datatype": "FP32", "shape": [-1, call.engine.dimensions[-1]]}
            ],
        }
    )


async def infer(call: Call) -> Reply:
    """Embed row by row; several tensors are one fused vector a row.

    Raises:
        ServingError: the request cannot be served.
    """
    known = call.engine.dimensions
    request = await asyncio.to_thread(parse, call, known)
    embedded = await embed(call.engine, request.inputs, request.dimensions)
    return await asyncio.to_thread(_answered, request, call.served, embedded)


def parse(call: Call, known: tuple[int, ...]) -> InferRequest:
    """Read a request.

    Raises:
        ServingError: a field or tensor that is wrong, missing, unknown or not supported.
    """
    tree, tail = _split(call)
    fields = Fields(parse_json(tree))
    name = fields.take("id")
    if name is not None and not isinstance(name, str):
        raise fields.refusal("id", "invalid_type", "must be a string")
    options = fields.inner("parameters")
    length = take_dimensions(options, known, "dimensions")
    binary = options.flag("binary_data_output")
    options.pass_over("priority", "timeout")
    options.end()
    binary = _outputs(fields, binary)
    columns = _columns(fields.need("inputs"), tail)
    fields.end()
    sizes = {len(column) for column in columns.values()}
    if len(sizes) != 1:
        raise fields.refusal("inputs", "invalid_shape", "must have tensors of one length")
    inputs = []
    for i in range(sizes.pop()):
        media: dict[Any, Source] = {}
        for tensor, column in columns.items():
            media |= _source(tensor, column[i], f"{tensor}[{i}]")
        where = f"{next(iter(columns))}[{i}]"
        inputs.append(Input(where, media))
    if not inputs:
        raise fields.refusal("inputs", "empty_input", "is empty")
    check_numbers(inputs, "inputs")
    return InferRequest(name, inputs, length, binary)


def _split(call: Call) -> tuple[bytes, bytes]:
    """The JSON of a body, and the bytes of tensors behind it."""
    size = call.headers.get(HEADER)
    if size is None:
        check_json(call.headers.get("content-type", ""))
        return call.body, b""
    if not size.isdecimal() or len(size) > 12 or int(size) > len(call.body):
        raise ServingError(400, "bad_request", f"the header {HEADER} is not a length of the JSON")
    return call.body[: int(size)], call.body[int(size) :]


def _outputs(fields: Fields, binary: bool) -> bool:
    outputs = fields.take("outputs", [])
    if not isinstance(outputs, list) or len(outputs) > 1:
        raise fields.refusal("outputs", "invalid_type", f"must be a list with `{OUTPUT}` alone")
    for tree in outputs:
        output = Fields(tree, "outputs[0]")
        if output.need("name") != OUTPUT:
            raise output.refusal("name", "unknown_tensor", f"must be `{OUTPUT}`")
        options = output.inner("parameters")
        options.neutral("the vectors are given, no classes", classification=(0,))
        binary = options.flag("binary_data") or binary
        options.end()
        output.end()
    return binary


def _columns(tensors: Any, tail: bytes) -> dict[str, list[str | bytes]]:
    """What each tensor holds, row by row."""
    if not isinstance(tensors, list) or not tensors:
        raise ServingError(
            400, "invalid_type", "`inputs` must be a list of tensors", param="inputs"
        )
    columns: dict[str, list[str | bytes]] = {}
    start = 0
    for i, tree in enumerate(tensors):
        tensor = Fields(tree, f"inputs[{i}]")
        name = tensor.need("name")
        if name not in TENSORS:
            known = ", ".join(TENSORS)
            raise tensor.refusal("name", "unknown_tensor", f"must be one of {known}")
        if name in columns:
            raise tensor.refusal("name", "duplicate_modality", "is that of another tensor too")
        if tensor.need("datatype") != "BYTES":
            raise tensor.refusal("datatype", "invalid_type", "must be BYTES")
        rows = _rows(tensor)
        options = tensor.inner("parameters")
        size = options.whole("binary_data_size", 0, len(tail) - start)
        options.end()
        data = tensor.take("data")
        tensor.end()
        if (size is None) == (data is None):
            problem = "must be there, or the size of its bytes"
            raise tensor.refusal("data", "missing_field", problem)
        found = _flat(data) if size is None else _unpacked(tail[start : start + size])
        if found is None or len(found) != rows:
            raise tensor.refusal("data", "invalid_shape", "must hold as much as its shape says")
        columns[name] = found
        start += size or 0
    if start != len(tail):
        raise ServingError(400, "invalid_shape", "the body has bytes that belong to no tensor")
    return columns


def _rows(tensor: Fields) -> int:
    """The rows of a shape, [N] or [N, 1]."""
    shape = tensor.need("shape")
    whole = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if not whole or len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise tensor.refusal("shape", "invalid_shape", "must be [N] or [N, 1]")
    return shape[0]


def _flat(data: Any) -> list[str | bytes] | None:
    """The strings of a list, or of a list of lists of one."""
    if not isinstance(data, list):
        return None
    found: list[str | bytes] = []
    for one in data:
        value = one[0] if isinstance(one, list) and len(one) == 1 else one
        if not isinstance(value, str):
            return None
        found.append(value)
    return found


def _unpacked(data: bytes) -> list[str | bytes] | None:
    """Byte strings, each behind its length in four bytes; None if they are cut."""
    found: list[str | bytes] = []
    start = 0
    while start + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, start)
        start += 4
        if start + size > len(data):
            return None
        found.append(data[start : start + size])
        start += size
    return found if start == len(data) else None


def _source(tensor: str, value: str | bytes, where: str) -> Mapping[Any, Source]:
    """Strings are read as everywhere; bytes are UTF-8, or a file as it is."""
    kind = NAMES[tensor]
    if isinstance(value, str):
        return parse_input(value, where, Reading(kind)).media
    if tensor == "text":
        try:
            return parse_input(value.decode(), where, Reading()).media
        except UnicodeDecodeError:
            message = "text is not UTF-8"
            raise ServingError(400, "invalid_text", message, param=where) from None
    try:
        return {kind: RawMedium(kind, value)}
    except ServingError as error:
        raise error.at(where) from None


def _answered(request: InferRequest, served: str, embedded: Embedded) -> Reply:
    rows = embedded.vectors_NE.astype("<f4")
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": list(rows.shape)}
    tree: dict[str, Any] = {"model_name": served, "model_version": "1", "outputs": [output]}
    if request.id is not None:
        tree["id"] = request.id
    if not request.binary:
        output["data"] = [float(f"{value:.9g}") for value in rows.ravel().tolist()]
        return rendered(tree)
    data = rows.tobytes()
    output["parameters"] = {"binary_data_size": len(data)}
    head = rendered(tree).body
    assert isinstance(head, bytes)  # noqa: S101 - `rendered` streams nothing
    return Reply(head + data, "application/octet-stream", {HEADER: str(len(head))})
