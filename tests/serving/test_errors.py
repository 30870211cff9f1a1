import re
from pathlib import Path

import pytest

from trimodal.errors import DataError
from trimodal_serving.errors import ServingError, internal, nonfinite, rejected

ROOT = Path(__file__).resolve().parents[2]
RAISED = re.compile(r'(?:ServingError\(\s*\S+,\s*|\d{3}: \()f?"(\w+)"')
PROCESSED = re.compile(r'code="(\w+)"')
UNREAD = {"client_closed_request"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "invalid_request_error"),
        (408, "timeout_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_envelope(status: int, kind: str) -> None:
    error = ServingError(status, "some_code", "a sentence", param="input[3]")
    assert error.envelope() == {
        "error": {
            "message": "a sentence",
            "type": kind,
            "param": "input[3]",
            "code": "some_code",
        }
    }


def test_an_error_says_either_when_or_never_to_send_again() -> None:
    assert ServingError(400, "a", "b").headers() == {"x-should-retry": "false"}
    assert ServingError(429, "a", "b", retry_after=7).headers() == {"retry-after": "7"}


def test_moving_an_error_keeps_the_rest() -> None:
    moved = ServingError(429, "a", "b", retry_after=7).at("input[1]")
    assert (moved.status, moved.code, moved.message) == (429, "a", "b")
    assert (moved.param, moved.retry_after) == ("input[1]", 7)


def test_what_the_processor_refuses_keeps_its_code_and_its_words() -> None:
    error = rejected(DataError("image has no pixels", code="invalid_image"), "input[2]")
    assert (error.status, error.code, error.param) == (400, "invalid_image", "input[2]")
    assert error.message == "image has no pixels"
    assert rejected(DataError("odd"), "input").code == "invalid_data"


def test_failures_of_ours_say_nothing_about_themselves() -> None:
    assert (internal("input").status, nonfinite("input").status) == (500, 500)
    assert internal().message == internal("input", ValueError("secret")).message


def test_every_code_is_documented() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    codes: set[str] = set()
    for path in (ROOT / "serving").rglob("*.py"):
        codes.update(RAISED.findall(path.read_text(encoding="utf-8")))
    for folder in ("media", "processors"):
        for path in (ROOT / "src" / "trimodal" / folder).glob("*.py"):
            codes.update(PROCESSED.findall(path.read_text(encoding="utf-8")))
    assert {"bad_json", "queue_full", "loading", "audio_too_long"} <= codes
    assert sorted(code for code in codes - UNREAD if f"`{code}`" not in page) == []
