from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimodal.data import Row
from trimodal.errors import ConfigError
from trimodal.evaluation.subgroups import check_keys, dependence, format_parts, split_scores


def _rows(*metadata: dict[str, Any]) -> list[Row]:
    return [Row(id=str(i), speaker=f"s{i % 2}", metadata=tree) for i, tree in enumerate(metadata)]


KEYS = "it may be label, group, speaker, speech_lang, or a key that manifests do not define"
ROWS = _rows(
    *({"figures": 10, "rare": True}, {"figures": 2, "rare": False}),
    *({"figures": 2, "rare": True}, {"figures": 2, "rare": False}, {"rare": False}),
)


def test_every_combination_is_counted_once_in_order() -> None:
    right_N = np.array([1.0, 1.0, 0.0, 0.0, np.nan])
    assert split_scores(ROWS, right_N, ["figures", "rare"]) == [
        {"values": [2, False], "samples": 2, "right": 0.5},
        {"values": [2, True], "samples": 1, "right": 0.0},
        {"values": [10, True], "samples": 1, "right": 1.0},
        {"values": [None, False], "samples": 0, "right": None},
    ]
    assert split_scores(ROWS, right_N, ["speaker"]) == [
        {"values": ["s0"], "samples": 2, "right": 0.5},
        {"values": ["s1"], "samples": 2, "right": 0.5},
    ]


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        (ROWS, ["colour"], f"by: no row of test.jsonl has 'colour'; {KEYS}"),
        (ROWS, ["label"], f"by: no row of test.jsonl has 'label'; {KEYS}"),
        *(
            (
                _rows({"a": value}, {"a": 2}),
                ["a"],
                "by: 'a' of test.jsonl is not always a number or a short string",
            )
            for value in ([1], {}, float("nan"), float("inf"), 10**400, "\ud800", "x" * 101)
        ),
        (
            _rows(*({"a": i} for i in range(65))),
            ["a"],
            "by: a part test.jsonl into 65, at most 64 can be shown",
        ),
    ],
)
def test_keys_that_tell_nothing_are_refused(rows: list[Row], keys: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_keys(rows, keys, str(Path("test.jsonl")))
    assert str(raised.value) == message


def test_keys_that_tell_something_are_taken() -> None:
    check_keys(ROWS, ["figures", "rare", "speaker"], "test.jsonl")
    check_keys(ROWS, [], "test.jsonl")


def test_parts_as_text() -> None:
    right_N = np.array([1.0, 1.0, 0.0, 0.0, np.nan])
    by = split_scores(ROWS, right_N, ["figures", "rare"])
    results = {
        "by": ["figures", "rare"],
        "directions": {
            "image->text[en]": {"by": by},
            "image->text[zh]": {"by": by[:1]},
            "image->speech": {},
        },
    }
    header, english, chinese = (line.split("  ") for line in format_parts(results).splitlines())
    assert [cell.strip() for cell in header if cell] == [
        *("right by figures, rare", "2, not rare", "2, rare", "10, rare", "no figures, not rare"),
    ]
    assert [cell.strip() for cell in english if cell] == [
        *("image->text[en]", "50.0 of 2", "0.0 of 1", "100.0 of 1", "- of 0"),
    ]
    assert [cell.strip() for cell in chinese if cell.strip()] == ["image->text[zh]", "50.0 of 2"]
    assert format_parts({"by": [], "directions": {"image->text": {}}}) == ""


def test_what_depends_on_a_number() -> None:
    right_N = np.array([1.0, 1.0, 0.0, 0.0, np.nan])
    keys = ["figures", "rare"]
    assert dependence(keys, split_scores(ROWS, right_N, keys)) == {"rare": [(2, 0.0), (10, 1.0)]}
    assert dependence(["figures"], split_scores(ROWS, right_N, ["figures"])) == {
        "": [(2, 1 / 3), (10, 1.0)]
    }
    for key in ("rare", "speaker"):
        assert dependence([key], split_scores(ROWS, right_N, [key])) == {}


def test_values_that_look_alike_stay_apart() -> None:
    rows = _rows({"a": True}, {"a": 1}, {"a": "1"}, {"a": None}, {"a": "no a"})
    right_N = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    parts = split_scores(rows, right_N, ["a"])
    assert sorted(part["right"] for part in parts) == [0.0, 0.0, 1.0, 1.0, 1.0]
    text = format_parts({"by": ["a"], "directions": {"image->text": {"by": parts}}})
    assert text.splitlines()[1].split("  ")[0] == "image->text"
    assert text.splitlines()[1].count("of 1") == 5


def test_a_key_may_be_called_as_a_score() -> None:
    rows = _rows({"samples": 3, "right": 0})
    [part] = split_scores(rows, np.array([1.0]), ["samples", "right"])
    assert part == {"values": [3, 0], "samples": 1, "right": 1.0}
