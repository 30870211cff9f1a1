from typing import Any

import pytest

from trimodal.evaluation.generation_grid import Cell, answers, grid, table


def _text(exact: float, gain: float | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"samples": 20, "exact": exact, "wer": 0.5, "chance": {"exact": 0.1}}
    if gain is not None:
        found |= {"gain": {"exact": gain}, "shuffled": {"exact": exact - gain}}
    return found


IMAGE = {
    "samples": 30,
    "copies": 0.2,
    "frechet": 1.5,
    "accuracy": 0.9,
    "chance": {"accuracy": 0.25},
    "shuffled": {"accuracy": 0.025},
    "gain": {"accuracy": 0.875},
    "unknown_label": 4,
}


def test_a_cell_is_the_mean_over_languages() -> None:
    directions = {
        "image->text[en]": _text(0.75, 0.5),
        "image->text[zh]": _text(0.25, 0.25),
        "text[en]->text[zh]": _text(0.5),
        "image->image": IMAGE,
        "speech->image": {"samples": 9},
    }
    by_source = dict(grid(directions))
    assert by_source["image"] == [Cell(0.9, 0.875, 1), Cell(0.5, 0.375, 2), None]
    assert by_source["text"] == [None, Cell(0.5, None, 1), None]
    assert by_source["speech"] == [Cell(None, None, 1), None, None]
    assert answers(directions) == []


def test_answers_stand_apart() -> None:
    directions = {"image+text->answer": _text(0.5, 0.25), "image->text[en]": _text(1.0)}
    assert answers(directions) == [("image+text->answer", Cell(0.5, 0.25, 1))]
    assert grid(directions)[0][1][1] == Cell(1.0, None, 1)
    assert grid(directions)[1][1] == [None, None, None]


def test_the_table_has_every_direction_and_the_columns_that_hold_something() -> None:
    found = table({"image->text[en]": _text(0.75, 0.5), "image->image": IMAGE})
    assert found.columns == [
        *("shuffled", "by chance", "gain", "WER", "Fréchet", "copies", "samples"),
    ]
    assert found.lines == [
        ("image->text[en]", 0.75, ["25.0", "10.0", "50.0", "50.0", "", "", "20"]),
        ("image->image", 0.9, ["2.5", "25.0", "87.5", "", "1.50", "20.0", "30 (4 not judged)"]),
    ]


@pytest.mark.parametrize("copies", [{}, {"copies": 0.0}])
def test_what_nobody_judged_has_no_score(copies: dict[str, float]) -> None:
    found = table({"image->image": {"samples": 3, **copies}})
    assert found.lines == [("image->image", None, [*(["0.0"] if copies else []), "3"])]
