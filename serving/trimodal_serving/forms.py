"""Bodies of multipart/form-data (RFC 7578), which is how clients send files.

form = parse_form(content_type, body); form.files["file"]
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from trimodal_serving.errors import ServingError

MAX_PARTS = 32
MAX_HEAD = 4096
"""Bytes of the headers of a part."""

_BOUNDARY = re.compile(r"""boundary=(?:"([^"\r\n]{1,70})"|([^\s;,"]{1,70}))""", re.IGNORECASE)
_NAME = re.compile(r'[;\s]name="([^"\r\n]*)"')
_FILENAME = re.compile(r"[;\s]filename\*?=", re.IGNORECASE)


@dataclass(frozen=True)
class Form:
    """What a form says."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    repeated: list[tuple[str, str | bytes]] = field(default_factory=list)
    """Parts that may be there more than once, in their order; bytes are those of files."""


def parse_form(content_type: str, body: bytes, repeated: Collection[str] | None = ()) -> Form:
    """Read a form that is in memory already; its parts are found by search alone.

    Args:
        content_type: with the boundary.
        body: of the request.
        repeated: names that may be there more than once; None for any.

    Raises:
        ServingError: another content type, a form that is broken or cut, or a field twice.
    """
    boundary = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or boundary is None:
        raise ServingError(
            415,
            "unsupported_content_type",
            "the content-type must be multipart/form-data with a boundary",
        )
    mark = b"\r\n--" + (boundary[1] or boundary[2]).encode("latin-1", "replace")
    _, *parts = (b"\r\n" + body).split(mark, MAX_PARTS + 1)
    if len(parts) > MAX_PARTS:
        raise _bad(f"has more than {MAX_PARTS} parts")
    if not parts or not parts[-1].startswith(b"--"):
        raise _bad("is cut: its last boundary is missing")
    form = Form()
    for part in parts[:-1]:
        _add(form, part, repeated)
    return form


def _add(form: Form, part: bytes, repeated: Collection[str] | None) -> None:
    head, blank, data = part.partition(b"\r\n\r\n")
    if not blank or len(head) > MAX_HEAD:
        raise _bad("has a part without a head")
    disposition = _disposition(head.decode("utf-8", "replace"))
    name = _NAME.search(disposition)
    if name is None:
        raise _bad("has a part without a name")
    key = name[1]
    if key in form.fields or key in form.files:
        raise ServingError(400, "duplicate_field", "the form has a field twice")
    is_file = _FILENAME.search(disposition) is not None
    try:
        value = data if is_file else data.decode()
    except UnicodeDecodeError:
        raise _bad("has a field that is not UTF-8") from None
    if repeated is None or key in repeated:
        form.repeated.append((key, value))
    elif isinstance(value, bytes):
        form.files[key] = value
    else:
        form.fields[key] = value


def _disposition(head: str) -> str:
    for line in head.split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == "content-disposition":
            return value
    return ""


def _bad(problem: str) -> ServingError:
    return ServingError(400, "bad_form", f"the form {problem}")
