import re
from xml.etree import ElementTree

import numpy as np
import pytest

from trimodal.evaluation.figures import (
    ACCENT,
    COLOURS,
    GRID,
    INK,
    MOST_POINTS,
    curve,
    curves,
    describe,
    histogram,
    shares,
)
from trimodal.evaluation.run import Series


def _series(values: np.ndarray, name: str = "loss") -> Series:
    return Series(name, np.arange(1, len(values) + 1), values)


def test_a_curve_is_one_element_in_the_colours_of_the_page() -> None:
    svg = curve(_series(np.linspace(5, 1, 50)))
    root = ElementTree.fromstring(svg)  # noqa: S314 - we have just made it
    assert root.tag == "svg"
    assert root.get("viewBox")
    assert root.get("width") is None
    assert root.get("role") == "img"
    assert root.get("aria-label") == "loss: 5 at step 1, 1 at step 50, between 1 and 5"
    assert all(COLOURS[stand_in] in svg for stand_in in (INK, GRID, ACCENT))
    assert not any(stand_in in svg for stand_in in COLOURS)
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert "http" not in svg


def test_ids_of_two_curves_differ_and_references_hold() -> None:
    svgs = [curve(_series(np.arange(9.0), name)) for name in ("loss", "grad_norm")]
    ids = [re.findall(r'\bid="([^"]*)"', svg) for svg in svgs]
    assert len({*ids[0], *ids[1]}) == len(ids[0]) + len(ids[1])
    for svg, own in zip(svgs, ids, strict=True):
        used = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', svg)
        assert used
        assert {a or b for a, b in used} <= set(own)


def test_a_long_run_is_thinned_and_keeps_its_mean() -> None:
    long = curve(_series(np.random.default_rng(0).random(50 * MOST_POINTS)))
    assert len(long) < 60_000


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [1e-9, 1e9], [-5.0, 5.0, -5.0]])
def test_odd_series_are_drawn(values: list[float]) -> None:
    assert curve(_series(np.array(values))).endswith("</svg>\n")


def test_a_hostile_name_stays_text() -> None:
    svg = curve(_series(np.arange(3.0), '"><script>alert(1)</script>'))
    assert "<script" not in svg
    ElementTree.fromstring(svg)  # noqa: S314 - well-formed all the same


def test_words_name_ends_and_range() -> None:
    series = Series("x", np.array([4, 8]), np.array([2.0, 0.123456]))
    assert describe(series) == "x: 2 at step 4, 0.1235 at step 8, between 0.1235 and 2"


def test_shares_are_told_in_words_and_drawn_a_line_each() -> None:
    lines = {"seen": [(1.0, 0.98), (2.0, 0.9)], "not seen": [(1.0, 0.7), (2.0, 0.6)]}
    svg = shares("image->text", "figures", lines)
    root = ElementTree.fromstring(svg)  # noqa: S314 - we have just made it
    assert root.get("aria-label") == (
        "image->text by figures: seen: 98.0 % at 1, 90.0 % at 2; not seen: 70.0 % at 1, 60.0 % at 2"
    )
    assert "not seen</text>" in svg
    assert not any(stand_in in svg for stand_in in COLOURS)
    single = shares("image->text", "figures", {"": [(1.0, 0.5), (4.0, 0.25)]})
    assert "50.0 % at 1, 25.0 % at 4" in single
    assert "legend" not in single


def test_names_from_a_manifest_are_drawn_as_they_are() -> None:
    names = [r"$\foo$", "_hidden", "红色", "<b>"]
    svg = shares("image->text", "$x$", {name: [(0.0, 0.1), (1.0, 0.2)] for name in names})
    root = ElementTree.fromstring(svg)  # noqa: S314 - we have just made it
    texts = ["".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")]
    assert set(names) <= {text.strip() for text in texts}


def test_lines_of_runs_have_the_colours_of_their_key() -> None:
    lines = {f"run{i}": _series(np.linspace(5, i, 50)) for i in range(3)}
    svg = curves("loss", lines)
    assert all(f"var(--c{i})" in svg for i in range(3))
    assert "var(--c3)" not in svg
    label = ElementTree.fromstring(svg).get("aria-label") or ""  # noqa: S314 - ours
    assert "run2: loss: 5 at step 1, 2 at step 50" in label


def test_a_histogram_says_where_its_values_lie() -> None:
    svg = histogram("texts", [*range(100), 10_000], "characters")
    label = ElementTree.fromstring(svg).get("aria-label") or ""  # noqa: S314 - ours
    assert label == "texts: 101 values, the middle 98 % from 1 to 99 characters"
    assert not any(stand_in in svg for stand_in in COLOURS)
