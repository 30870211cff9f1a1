"""The forms in which clients write what is to be embedded: one `Input` for each vector.

inputs = parse_inputs(["a dog", "a cat"])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trimodal.batch import Modality
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import blank, shown
from trimodal_serving.media import EncodedMedium, LinkedMedium, RawMedium, TokenIds

MAX_INPUTS = 2048
MAX_MEDIA = 64
"""Images and utterances over all inputs of a request."""

Source = str | EncodedMedium | RawMedium | LinkedMedium | TokenIds
Keep = Literal["start", "end"]
"""Which part remains of a text that is too long."""
NAMES = {
    "image": Modality.VISION,
    "text": Modality.TEXT,
    "audio": Modality.SPEECH,
    "speech": Modality.SPEECH,
}
PARTS = {
    "text": Modality.TEXT,
    "image_url": Modality.VISION,
    "image_base64": Modality.VISION,
    "input_audio": Modality.SPEECH,
    "audio_url": Modality.SPEECH,
    "audio_base64": Modality.SPEECH,
}
"""What the parts of a content are, by their type; OpenAI's and Voyage's words."""


@dataclass(frozen=True)
class Input:
    """What one vector is computed from."""

    where: str
    """Its place in the request, for error messages: `input` or `input[3]`."""
    media: Mapping[Modality, Source]
    keep: Keep | None = None
    """None refuses a text that is too long."""


@dataclass(frozen=True)
class Reading:
    """How a wire shape writes its inputs."""

    modality: Modality | None = None
    """What strings are; None makes all of them text, whatever they look like."""
    name: str = "input"
    """The field that holds them."""
    keep: Keep | None = None
    token_ids: bool = False
    """Whether lists of numbers are texts, as the pieces of this model."""
    chat: bool = False
    """Whether items are messages, or lists that hold one."""


def parse_inputs(value: Any, reading: Reading | None = None) -> list[Input]:
    """Read the field that holds what is to be embedded.

    Args:
        value: parsed JSON: a string, an object, or a list of either.
        reading: what strings and numbers are; text and nothing, if it is not said.

    Raises:
        ServingError: none of the known forms; `param` says where.
    """
    reading = reading or Reading()
    name = reading.name
    alone = isinstance(value, str | dict)
    items = [value] if alone else value
    if not isinstance(items, list):
        raise ServingError(
            400, "invalid_type", f"`{name}` must be a string, an object or a list", param=name
        )
    if not items:
        raise ServingError(400, "empty_input", f"`{name}` is an empty list", param=name)
    if _is_token_ids(items):
        items, alone = [items], True
    if not reading.token_ids and any(map(_is_token_ids, items)):
        raise ServingError(
            400,
            "token_ids_not_supported",
            f"`{name}` holds token ids, whose meaning differs between tokenizers; send strings "
            "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
            param=name,
        )
    inputs = [
        parse_input(item, name if alone else f"{name}[{i}]", reading)
        for i, item in enumerate(items[: MAX_INPUTS + 1])
    ]
    check_numbers(inputs, name)
    return inputs


def parse_input(item: Any, where: str, reading: Reading) -> Input:
    """Read what one vector is computed from.

    Raises:
        ServingError: none of the known forms; `param` is `where`.
    """
    try:
        return Input(where, _media(item, reading), reading.keep)
    except ServingError as error:
        raise error.at(where) from None


def check_numbers(inputs: Sequence[Input], name: str) -> None:
    """Return if one request may hold so many inputs.

    Raises:
        ServingError: it may not.
    """
    if len(inputs) > MAX_INPUTS:
        raise _too_many(name, f"more than {MAX_INPUTS} inputs, which is the limit")
    media = sum(m is not Modality.TEXT for item in inputs for m in item.media)
    if media > MAX_MEDIA:
        raise _too_many(name, f"{media} images and utterances, the limit is {MAX_MEDIA}")


def _too_many(name: str, problem: str) -> ServingError:
    message = f"`{name}` has {problem} for one request"
    return ServingError(413, "too_many_inputs", message, param=name)


def _is_token_ids(items: Any) -> bool:
    return isinstance(items, list) and bool(items) and all(type(item) is int for item in items)


def _message(item: Any) -> Any:
    """The message that a conversation consists of."""
    if isinstance(item, list):
        if len(item) != 1:
            raise ServingError(
                400, "unsupported_messages", "a conversation must hold one message, of the user"
            )
        (item,) = item
    if not isinstance(item, dict):
        raise ServingError(400, "invalid_type", "a message must be an object")
    if item.get("role") != "user":
        raise ServingError(400, "unsupported_messages", "a message must have the role `user`")
    if "content" not in item:
        raise ServingError(400, "missing_field", "a message has no `content`")
    return {key: value for key, value in item.items() if key != "role"}


def _media(item: Any, reading: Reading) -> dict[Modality, Source]:
    modality = reading.modality
    if reading.token_ids and _is_token_ids(item):
        return {Modality.TEXT: TokenIds(tuple(item))}
    item = _message(item) if reading.chat else item
    if isinstance(item, str):
        kind = Modality.TEXT if modality is None else modality
        return {kind: _source(item, kind)}
    if not isinstance(item, dict):
        if reading.token_ids and item == []:
            raise ServingError(400, "empty_input", "an input is an empty list")
        known = "a string, an object or a list of whole numbers"
        known = known if reading.token_ids else "a string or an object"
        raise ServingError(400, "invalid_type", f"an input must be {known}")
    if modality is not None:
        raise ServingError(
            400,
            "invalid_input",
            "`modality` says what strings are; an object says it by its keys",
        )
    if "content" in item:
        _only(item, {"content"})
        return parse_content(item["content"])
    _only(item, set(NAMES))
    return _one_of_each([(NAMES[key], _unwrap(value, NAMES[key])) for key, value in item.items()])


def parse_content(content: Any) -> dict[Modality, Source]:
    """The media of a message's content: a string, or a list of parts.

    Raises:
        ServingError: none of the known forms, nothing, or two of one modality.
    """
    return _one_of_each(_parts(content))


def _one_of_each(parts: Sequence[tuple[Modality, Any]]) -> dict[Modality, Source]:
    media: dict[Modality, Source] = {}
    for kind, value in parts:
        if kind in media:
            raise ServingError(
                400,
                "duplicate_modality",
                "an input holds at most one text, one image and one audio",
            )
        media[kind] = _source(value, kind)
    if not media:
        raise ServingError(400, "empty_input", "an input is empty")
    return media


def _source(value: Any, modality: Modality) -> Source:
    if not isinstance(value, str):
        raise ServingError(400, "invalid_type", "text and media must be strings")
    if not value.strip():
        raise ServingError(400, "empty_input", f"an input {blank(value)}")
    if modality is Modality.TEXT:
        return value
    return LinkedMedium.parse(value, modality) or EncodedMedium.parse(value, modality)


def _unwrap(value: Any, modality: Modality) -> Any:
    """The string of `{"url": "data:…"}` or `{"bytes": "…"}`, which Jina's clients send."""
    if modality is Modality.TEXT or not isinstance(value, dict):
        return value
    _only(value, {"url", "bytes"})
    if len(value) != 1:
        raise ServingError(400, "invalid_input", "a medium holds one of `url` and `bytes`")
    return next(iter(value.values()))


def _parts(content: Any) -> list[tuple[Modality, Any]]:
    if isinstance(content, str):
        return [(Modality.TEXT, content)]
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise ServingError(400, "invalid_type", "`content` must be a string or a list of objects")
    return [_part(part) for part in content]


def _part(part: dict[str, Any]) -> tuple[Modality, Any]:
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in PARTS:
        raise ServingError(
            400, "invalid_input", f"`type` of a part must be one of {', '.join(PARTS)}"
        )
    _only(part, {"type", kind})
    value = part.get(kind)
    if kind in ("text", "image_base64", "audio_base64"):
        return PARTS[kind], value
    if kind != "input_audio":
        if isinstance(value, dict):
            _only(value, {"url", "detail"})
            value = value.get("url")
        return PARTS[kind], value
    if not isinstance(value, dict):
        raise ServingError(400, "invalid_type", "`input_audio` must hold `data` and `format`")
    _only(value, {"data", "format"})
    return Modality.SPEECH, value.get("data")


def _only(item: dict[str, Any], known: set[str]) -> None:
    for key in item:
        if key not in known:
            raise ServingError(400, "unknown_field", f"an input has {shown(key)}, which is unknown")
