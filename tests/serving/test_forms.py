import httpx
import pytest

from trimodal_serving.errors import ServingError
from trimodal_serving.forms import MAX_PARTS, Form, parse_form

KIND = "multipart/form-data; boundary=x"


def sent(fields: dict[str, str], files: dict[str, tuple[str, bytes]]) -> tuple[str, bytes]:
    """Content type and body as a client writes them."""
    request = httpx.Request("POST", "http://x", data=fields, files=files)
    return request.headers["content-type"], request.read()


@pytest.mark.parametrize("data", [b"", b"\r\n", b"--x\r\n\r\n--", bytes(range(256)) * 9, b"\n" * 5])
def test_files_come_byte_by_byte(data: bytes) -> None:
    fields = {"model": "tiny", "prompt": "红色 \r\n\r\n line"}
    form = parse_form(*sent(fields, {"file": ('a"b\r\n;name="z.wav', data)}))
    assert form == Form(fields, {"file": data})


def test_a_quoted_boundary_and_a_preamble() -> None:
    body = b'ignored\r\n--a b\r\nContent-Disposition: form-data; name="k"\r\n\r\nv\r\n--a b--\r\n'
    assert parse_form('multipart/form-data; boundary="a b"', body).fields == {"k": "v"}


PART = b'--x\r\nContent-Disposition: form-data; name="k"\r\n\r\nv\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        ("application/json", b"{}", 415, "unsupported_content_type"),
        ("multipart/form-data", b"", 415, "unsupported_content_type"),
        (KIND, b"", 400, "bad_form"),
        (KIND, PART, 400, "bad_form"),
        (KIND, PART * 2 + b"--x--", 400, "duplicate_field"),
        (KIND, b"--x\r\nno head\r\n--x--", 400, "bad_form"),
        (KIND, b"--x\r\na: b\r\n\r\nv\r\n--x--", 400, "bad_form"),
        (KIND, PART.replace(b"v", b"\xff") + b"--x--", 400, "bad_form"),
        (KIND, b"--x\r\n" + b"h" * 9999 + b"\r\n\r\nv\r\n--x--", 400, "bad_form"),
        (KIND, PART * (MAX_PARTS + 9) + b"--x--", 400, "bad_form"),
    ],
)
def test_broken_forms(kind: str, body: bytes, status: int, code: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_form(kind, body)
    assert (caught.value.status, caught.value.code) == (status, code)
