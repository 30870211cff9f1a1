import base64

import pytest

from trimodal.batch import Modality
from trimodal_serving import media
from trimodal_serving.errors import ServingError
from trimodal_serving.media import EncodedMedium, LinkedMedium

RAW = bytes(range(256)) * 2
PLAIN = base64.b64encode(RAW).decode()


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.rstrip("="),
        base64.urlsafe_b64encode(RAW).decode(),
        base64.encodebytes(RAW).decode(),
        f"data:image/png;base64,{PLAIN}",
        f"DATA:image/png;charset=x;BASE64,{PLAIN}",
        f"data:;base64,{PLAIN}",
        f" data:application/octet-stream;base64,{PLAIN}",
    ],
    ids=["plain", "unpadded", "urlsafe", "wrapped", "data-url", "capitals", "untyped", "octets"],
)
def test_bytes_come_back(text: str) -> None:
    assert EncodedMedium.parse(text, Modality.VISION).decode() == RAW


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1/x.png",
        "https://example.org/x.png",
        "HTTPS://example.org/x.png",
        " http://example.org/x.png",
        "file:///etc/passwd",
        "file:/etc/passwd",
        "ftp://example.org/x",
        "gopher:x",
    ],
)
@pytest.mark.parametrize("modality", [Modality.VISION, Modality.SPEECH])
def test_addresses_are_refused(text: str, modality: Modality) -> None:
    with pytest.raises(ServingError, match="send the file itself as a data URL") as caught:
        EncodedMedium.parse(text, modality)
    assert (caught.value.status, caught.value.code) == (400, "url_not_allowed")
    assert "passwd" not in str(caught.value)


def test_an_address_that_nobody_fetched_has_no_file() -> None:
    linked = LinkedMedium.parse("http://example.org/x.wav", Modality.SPEECH)
    assert linked is not None
    assert linked.kind == "audio"
    with pytest.raises(ServingError, match="audio is an address, which this server does not"):
        linked.decode()
    for text in (PLAIN, f"data:image/png;base64,{PLAIN}", "file:///etc/passwd", "httpsx:a", ""):
        assert LinkedMedium.parse(text, Modality.VISION) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("data:image/png;base64", "not a complete data URL"),
        ("data:image/png,%89PNG", "without ;base64"),
        (f"data:audio/wav;base64,{PLAIN}", "a data URL of audio"),
        (f"data:video/mp4;base64,{PLAIN}", "a data URL of video"),
        ("data:" + "x" * 10_000, "not a complete data URL"),
    ],
)
def test_other_data_urls_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ServingError, match=problem) as caught:
        EncodedMedium.parse(text, Modality.VISION)
    assert (caught.value.status, caught.value.code) == (400, "invalid_image")


@pytest.mark.parametrize(
    "text", ["!!!!", "a", "AAA=BBBB", "💥💥💥💥", "AAAA\x00", "AA.A", "\ud800"]
)
def test_broken_base64_is_refused(text: str) -> None:
    with pytest.raises(ServingError, match="not valid base64") as caught:
        EncodedMedium.parse(text, Modality.SPEECH).decode()
    assert (caught.value.status, caught.value.code) == (400, "invalid_audio")


def test_what_is_not_ascii_is_refused_before_decoding() -> None:
    with pytest.raises(ServingError, match="not valid base64") as caught:
        EncodedMedium.parse("AAAA💥", Modality.VISION)
    assert (caught.value.status, caught.value.code) == (400, "invalid_image")


def test_size_is_limited_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_BYTES", 100)
    with pytest.raises(ServingError) as caught:
        EncodedMedium.parse(PLAIN, Modality.VISION)
    assert (caught.value.status, caught.value.code) == (413, "medium_too_large")
