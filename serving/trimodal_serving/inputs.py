"""The forms in which clients write what is to be embedded: one `Input` for each vector.

inputs = parse_inputs(["a dog", "a cat"], modality=None)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimodal.batch import Modality
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import shown
from trimodal_serving.media import EncodedMedium, RawMedium

MAX_INPUTS = 2048
MAX_MEDIA = 64
"""Images and utterances over all inputs of a request."""

Source = str | EncodedMedium | RawMedium
NAMES = {
    "image": Modality.VISION,
    "text": Modality.TEXT,
    "audio": Modality.SPEECH,
    "speech": Modality.SPEECH,
}


@dataclass(frozen=True)
class Input:
    """What one vector is computed from."""

    where: str
    """Its place in the request, for error messages: `input` or `input[3]`."""
    media: Mapping[Modality, Source]


def parse_inputs(value: Any, modality: Modality | None) -> list[Input]:
    """Read the field `input`.

    Args:
        value: parsed JSON: a string, an object, or a list of either.
        modality: what strings are; None makes all of them text, whatever they look like.

    Raises:
        ServingError: none of the known forms; `param` says where.
    """
    alone = isinstance(value, str | dict)
    items = [value] if alone else value
    if not isinstance(items, list):
        raise ServingError(
            400, "invalid_type", "`input` must be a string, an object or a list", param="input"
        )
    if not items:
        raise ServingError(400, "empty_input", "`input` is an empty list", param="input")
    if _is_token_ids(items) or any(isinstance(i, list) and _is_token_ids(i) for i in items):
        raise ServingError(
            400,
            "token_ids_not_supported",
            "`input` holds token ids, whose meaning differs between tokenizers; send strings "
            "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
            param="input",
        )
    if len(items) > MAX_INPUTS:
        raise _too_many(f"{len(items)} inputs, the limit is {MAX_INPUTS}")
    inputs = []
    for i, item in enumerate(items):
        where = "input" if alone else f"input[{i}]"
        try:
            inputs.append(Input(where, _media(item, modality)))
        except ServingError as error:
            raise error.at(where) from None
    media = sum(m is not Modality.TEXT for item in inputs for m in item.media)
    if media > MAX_MEDIA:
        raise _too_many(f"{media} images and utterances, the limit is {MAX_MEDIA}")
    return inputs


def _too_many(problem: str) -> ServingError:
    message = f"`input` has {problem} for one request"
    return ServingError(413, "too_many_inputs", message, param="input")


def _is_token_ids(items: list[Any]) -> bool:
    return bool(items) and all(type(item) is int for item in items)


def _media(item: Any, modality: Modality | None) -> dict[Modality, Source]:
    if isinstance(item, str):
        kind = Modality.TEXT if modality is None else modality
        return {kind: _source(item, kind)}
    if not isinstance(item, dict):
        raise ServingError(400, "invalid_type", "an input must be a string or an object")
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
        raise ServingError(400, "empty_input", "an input is empty")
    return value if modality is Modality.TEXT else EncodedMedium.parse(value, modality)


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
    if kind not in ("text", "image_url", "input_audio", "audio_url"):
        raise ServingError(
            400,
            "invalid_input",
            "`type` of a part must be text, image_url, input_audio or audio_url",
        )
    _only(part, {"type", kind})
    value = part.get(kind)
    if kind == "text":
        return Modality.TEXT, value
    if kind != "input_audio":
        if isinstance(value, dict):
            _only(value, {"url", "detail"})
            value = value.get("url")
        return Modality.VISION if kind == "image_url" else Modality.SPEECH, value
    if not isinstance(value, dict):
        raise ServingError(400, "invalid_type", "`input_audio` must hold `data` and `format`")
    _only(value, {"data", "format"})
    return Modality.SPEECH, value.get("data")


def _only(item: dict[str, Any], known: set[str]) -> None:
    for key in item:
        if key not in known:
            raise ServingError(400, "unknown_field", f"an input has {shown(key)}, which is unknown")
