"""Media inside JSON: data URLs and base64, and addresses, which are not opened here.

pixels = EncodedMedium.parse("data:image/png;base64,…", Modality.VISION).decode()
"""

import base64
import binascii
import re
from dataclasses import dataclass

from trimodal.batch import Modality
from trimodal_serving.errors import ServingError

MAX_BYTES = 25 * 1024 * 1024
"""Largest encoded image or utterance."""

_SCHEME = re.compile(r"\s*([a-zA-Z][a-zA-Z0-9+.\-]*):")
_DATA = re.compile(r"\s*data:([^;,]{0,128})((?:;[^;,]{0,128}){0,8}),", re.IGNORECASE)
_KINDS = {Modality.VISION: "image", Modality.SPEECH: "audio"}
# line breaks, as the base64 command writes them, and the alphabet of URLs
_CLEAN = str.maketrans({" ": None, "\n": None, "\r": None, "\t": None, "-": "+", "_": "/"})


@dataclass(frozen=True)
class EncodedMedium:
    """Base64 of an image or utterance whose form was looked at and whose content was not."""

    modality: Modality
    base64: str

    @classmethod
    def parse(cls, text: str, modality: Modality) -> "EncodedMedium":
        """Take a data URL or bare base64.

        Raises:
            ServingError: the address of something elsewhere, another kind of medium, too long, or
                not ASCII.
        """
        scheme = _SCHEME.match(text[:64])
        if scheme is not None:
            text = _payload(text, scheme[1].lower(), modality)
        if len(text) * 3 // 4 > MAX_BYTES:
            raise too_large(modality)
        if not text.isascii():  # kept until it is decoded, at up to four bytes a character
            raise invalid(modality, "is not valid base64")
        return cls(modality, text)

    def decode(self) -> bytes:
        """The bytes of the file.

        Raises:
            ServingError: broken base64.
        """
        text = self.base64.translate(_CLEAN).rstrip("=")
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise invalid(self.modality, "is not valid base64") from None


@dataclass(frozen=True)
class RawMedium:
    """A file as it is.

    Raises:
        ServingError: it is larger than `MAX_BYTES`, or empty.
    """

    modality: Modality
    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) > MAX_BYTES:
            raise too_large(self.modality)
        if not self.data:
            raise invalid(self.modality, "is an empty file")

    def decode(self) -> bytes:
        """The bytes of the file."""
        return self.data


@dataclass(frozen=True)
class LinkedMedium:
    """An image or utterance that lies elsewhere; `Fetching` puts the file in its place."""

    modality: Modality
    url: str

    @classmethod
    def parse(cls, text: str, modality: Modality) -> "LinkedMedium | None":
        """Take an address of http or https; None is something else."""
        scheme = _SCHEME.match(text[:64])
        if scheme is None or scheme[1].lower() not in ("http", "https"):
            return None
        return cls(modality, text.strip())

    @property
    def kind(self) -> str:
        """`image` or `audio`."""
        return _KINDS[self.modality]

    def refusal(self) -> ServingError:
        """What is said where nothing is fetched."""
        return _not_fetched(self.modality)

    def decode(self) -> bytes:
        """No file is here.

        Raises:
            ServingError: always; nobody fetched it.
        """
        raise self.refusal()


@dataclass(frozen=True)
class TokenIds:
    """A text as the pieces of this model's own tokenizer."""

    ids: tuple[int, ...]


def recognised(data: bytes) -> Modality:
    """Whether a file is a picture or speech, by how its format begins.

    Raises:
        ServingError: it is in none of the formats.
    """
    inside = data[8:12] if data[:4] == b"RIFF" else b""
    if data.startswith((b"\x89PNG", b"\xff\xd8\xff")) or inside == b"WEBP":
        return Modality.VISION
    if data.startswith((b"fLaC", b"OggS", b"ID3")) or inside == b"WAVE" or _is_mpeg(data):
        return Modality.SPEECH
    raise ServingError(
        400,
        "unsupported_format",
        "a file is neither a picture (PNG, JPEG, WebP) nor speech (WAV, FLAC, OGG, MP3)",
    )


def _is_mpeg(data: bytes) -> bool:
    return len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0


def too_large(modality: Modality) -> ServingError:
    """An image or utterance of more than `MAX_BYTES`."""
    return ServingError(
        413, "medium_too_large", f"{_KINDS[modality]} has more than {MAX_BYTES // 1024**2} MiB"
    )


def _payload(text: str, scheme: str, modality: Modality) -> str:
    if scheme != "data":
        raise _not_fetched(modality)
    head = _DATA.match(text)
    if head is None:
        raise invalid(modality, "is not a complete data URL")
    declared = head[1].strip().lower().partition("/")[0]
    if declared in ("image", "audio", "video", "text") and declared != _KINDS[modality]:
        raise invalid(modality, f"is a data URL of {declared}")
    if "base64" not in head[2].lower().replace(" ", "").split(";"):
        raise invalid(modality, "is a data URL without ;base64")
    return text[head.end() :]


def _not_fetched(modality: Modality) -> ServingError:
    kind = _KINDS[modality]
    return ServingError(
        400,
        "url_not_allowed",
        f"{kind} is an address, which this server does not fetch: "
        f"send the file itself as a data URL, data:{kind}/…;base64,…",
    )


def invalid(modality: Modality, problem: str) -> ServingError:
    """An image or utterance that cannot be used; `problem` continues a sentence about it."""
    kind = _KINDS[modality]
    return ServingError(400, f"invalid_{kind}", f"{kind} {problem}")
