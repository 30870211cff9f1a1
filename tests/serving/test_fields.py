import math
from collections.abc import Callable
from typing import Any

import pytest

from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields, check_json, parse_json


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "bad_json"),
        (b"\xff", "bad_json"),
        (b'{"a": NaN}', "bad_json"),
        (b'{"a": [{"b": 1e999}]}', "bad_json"),
        (b"-1e999", "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b"[" + b"," * 1_000_001, "bad_json"),
        (b'{"a": 1, "a": 2}', "duplicate_field"),
    ],
)
def test_what_is_no_json(body: bytes, code: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_json(body)
    assert caught.value.code == code


@pytest.mark.parametrize("kind", ["", "application/json", "Application/JSON; charset=utf-8"])
def test_content_types_of_json(kind: str) -> None:
    check_json(kind)


def test_other_content_types() -> None:
    with pytest.raises(ServingError, match="application/json"):
        check_json("text/plain")


def test_values_are_taken_and_null_is_absent() -> None:
    fields = Fields({"a": "x", "b": 1, "c": 2, "d": True, "e": {"f": "g"}, "h": None, "model": "m"})
    assert fields.text("a", most=1) == "x"
    assert fields.number("b", 0, 1) == 1
    assert fields.whole("c", 0, 2) == 2
    assert fields.flag("d")
    inner = fields.inner("e")
    assert inner.choice("f", ["g"]) == "g"
    inner.end()
    assert fields.whole("h", 0, 1) is None
    fields.model("m")
    assert not fields.flag("absent")
    assert fields.choice("absent", ["x"], "x") == "x"
    fields.inner("absent").end()
    fields.end()


CASES: dict[str, tuple[Any, Callable[[Fields], Any], str, str | None]] = {
    "no-object": ([], lambda _: None, "invalid_type", None),
    "missing": ({}, lambda f: f.need("a"), "missing_field", "a"),
    "null": ({"a": None}, lambda f: f.need("a"), "missing_field", "a"),
    "no-text": ({"a": 1}, lambda f: f.text("a"), "invalid_type", "a"),
    "empty": ({"a": " "}, lambda f: f.text("a"), "empty_input", "a"),
    "long": ({"a": "xx"}, lambda f: f.text("a", 1), "context_length_exceeded", "a"),
    "no-number": ({"a": "1"}, lambda f: f.number("a", 0, 1), "invalid_a", "a"),
    "truth": ({"a": True}, lambda f: f.number("a", 0, 1), "invalid_a", "a"),
    "infinite": ({"a": math.inf}, lambda f: f.number("a", 0, 1), "invalid_a", "a"),
    "above": ({"a": 2}, lambda f: f.number("a", 0, 1), "invalid_a", "a"),
    "fraction": ({"a": 0.5}, lambda f: f.whole("a", 0, 1), "invalid_a", "a"),
    "no-flag": ({"a": 1}, lambda f: f.flag("a"), "invalid_type", "a"),
    "no-choice": ({"a": "x"}, lambda f: f.choice("a", ["y"]), "invalid_a", "a"),
    "unhashable": ({"a": []}, lambda f: f.choice("a", ["y"]), "invalid_a", "a"),
    "inner": ({"a": {"b": 1}}, lambda f: f.inner("a").end(), "unknown_field", "a.b"),
    "no-inner": ({"a": 1}, lambda f: f.inner("a"), "invalid_type", "a"),
    "not-neutral": ({"a": True}, lambda f: f.neutral("x", a=(1,)), "unsupported_field", "a"),
    "unknown": ({"a": 1}, lambda f: f.end(), "unknown_field", "a"),
    "unknown-null": ({"a": None}, lambda f: f.end(), "unknown_field", "a"),
    "unusual": ({"a b": 1}, lambda f: f.end(), "unknown_field", None),
    "other-model": ({"model": "x"}, lambda f: f.model("y"), "model_not_found", "model"),
}


@pytest.mark.parametrize(("tree", "read", "code", "param"), CASES.values(), ids=CASES)
def test_complaints_name_the_field(
    tree: Any, read: Callable[[Fields], Any], code: str, param: str | None
) -> None:
    with pytest.raises(ServingError) as caught:
        read(Fields(tree))
    assert (caught.value.code, caught.value.param) == (code, param)


def test_neutral_values_pass() -> None:
    fields = Fields({"n": 1, "tools": [], "response_format": {"type": "text"}, "user": "me"})
    fields.neutral("", n=(1,), tools=([],), response_format=({"type": "text"},), stop=())
    fields.pass_over("user", "metadata")
    fields.end()


def test_white_space_is_not_called_empty() -> None:
    for text, problem in (("", "`a` is empty"), (" \n", "`a` holds nothing but white space")):
        with pytest.raises(ServingError, match=problem):
            Fields({"a": text}).text("a")
