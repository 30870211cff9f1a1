"""The files of the page, as they are answered.

reply = page_file("app.js", if_none_match="")
"""

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from trimodal_serving.errors import ServingError
from trimodal_serving.replies import Reply

PAGE = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may load: nothing from elsewhere, and no script that is written into it."""
HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(self)",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class _File(NamedTuple):
    data: bytes
    media_type: str
    tag: str


def page_file(name: str, if_none_match: str) -> Reply:
    """One file of the page, or nothing but 304 if the browser has it.

    Args:
        name: as in the path; what is no name of a file of ours never reaches the disk.
        if_none_match: the header of the request.

    Raises:
        ServingError: there is none of this name.
    """
    file = _assets().get(name)
    if file is None:
        raise ServingError(404, "not_found", "the playground has no file of this name")
    headers = {**HEADERS, "etag": file.tag}
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    if file.tag in known or "*" in known:
        return Reply(b"", file.media_type, headers, 304)
    return Reply(file.data, file.media_type, headers)


@cache
def _assets() -> dict[str, _File]:
    found = {}
    for entry in (files("trimodal_serving.playground") / "assets").iterdir():
        kind = TYPES.get(entry.name[entry.name.rfind(".") :])
        if kind is not None:
            data = entry.read_bytes()
            found[entry.name] = _File(data, kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return found
