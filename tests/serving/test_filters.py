from typing import Any

import pytest

from trimodal_serving.errors import ServingError
from trimodal_serving.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_VALUES,
    Among,
    Compared,
    Condition,
    Exists,
    Joined,
    Not,
    fault,
    parse_filter,
)

FIELDS = {"year": "integer", "name": "string", "size": "number", "good": "boolean"}


def nested(depth: int) -> dict[str, Any]:
    return {"year": 1} if depth == 1 else {"not": nested(depth - 1)}


@pytest.mark.parametrize(
    ("tree", "condition"),
    [
        ({"year": 5}, Compared("year", "eq", 5)),
        ({"size": {"gt": 1}}, Compared("size", "gt", 1.0)),
        ({"good": {"ne": True}}, Compared("good", "ne", True)),
        ({"id": {"in": ["a", "b"]}}, Among("id", ("a", "b"))),
        ({"modality": "image"}, Compared("modality", "eq", "image")),
        ({"name": {"exists": True}}, Exists("name")),
        ({"name": {"exists": False}}, Not(Exists("name"))),
        (
            {"year": {"gte": 1, "lt": 3}},
            Joined("and", (Compared("year", "gte", 1), Compared("year", "lt", 3))),
        ),
        (
            {"or": [{"year": 1}, {"not": {"name": "' OR 1=1 --"}}]},
            Joined("or", (Compared("year", "eq", 1), Not(Compared("name", "eq", "' OR 1=1 --")))),
        ),
    ],
)
def test_forms(tree: Any, condition: Condition) -> None:
    assert parse_filter(tree, FIELDS) == condition


@pytest.mark.parametrize(
    ("tree", "where", "problem"),
    [
        (None, "filter", "must be an object"),
        ({}, "filter", "must be an object"),
        ("year > 1", "filter", "must be an object"),
        ([{"year": 1}], "filter", "must be an object"),
        ({"colour": 1}, "filter", "none of id, modality, year"),
        ({"year; DROP TABLE": 1}, "filter", "an unusual name"),
        ({"year": "1"}, "filter.year", "must be an integer"),
        ({"year": True}, "filter.year", "must be an integer"),
        ({"year": 1.0}, "filter.year", "must be an integer"),
        ({"year": 2**63}, "filter.year", r"less than 2\^63"),
        ({"year": None}, "filter.year", "must be an integer"),
        ({"good": 1}, "filter.good", "must be a boolean"),
        ({"name": 7}, "filter.name", "must be a string"),
        ({"name": "a\0"}, "filter.name", "must be Unicode without NUL"),
        ({"name": "\ud800"}, "filter.name", "must be Unicode without NUL"),
        ({"name": "x" * 1025}, "filter.name", "has 1025 characters, the limit is 1024"),
        ({"good": {"gt": False}}, "filter.good.gt", "no order"),
        ({"year": {}}, "filter.year", "something in it"),
        ({"year": {"like": 1}}, "filter.year", "none of eq, ne"),
        ({"year": {"in": []}}, "filter.year.in", "1 to 256"),
        ({"year": {"in": [1] * (MAX_VALUES + 1)}}, "filter.year.in", "1 to 256"),
        ({"year": {"in": [1, "a"]}}, "filter.year.in", "must be an integer"),
        ({"year": {"exists": 1}}, "filter.year.exists", "true or false"),
        ({"and": {}}, "filter.and", "must be a list"),
        ({"or": [{"year": 1}, {}]}, "filter.or[1]", "must be an object"),
        ({"or": [{"year": 1}] * (MAX_CONDITIONS + 1)}, "filter.or[64].year", "64 conditions"),
        (nested(MAX_DEPTH + 1), "filter" + ".not" * MAX_DEPTH, "8 deep"),
    ],
)
def test_other_forms_are_refused(tree: Any, where: str, problem: str) -> None:
    with pytest.raises(ServingError, match=problem) as caught:
        parse_filter(tree, FIELDS)
    assert (caught.value.status, caught.value.code) == (400, "invalid_filter")
    assert caught.value.param == where


def test_the_limits_themselves_are_within() -> None:
    assert parse_filter(nested(MAX_DEPTH), FIELDS)
    assert parse_filter({"or": [{"year": 1}] * MAX_CONDITIONS}, FIELDS)


def test_numbers_may_be_whole_but_not_infinite() -> None:
    assert fault(1, "number") is None
    assert fault(True, "number") == "must be a number"
    for value in (10**400, -(2**63) - 1, float("inf"), float("nan")):
        assert fault(value, "number") == "must be at least -2^63 and less than 2^63"
