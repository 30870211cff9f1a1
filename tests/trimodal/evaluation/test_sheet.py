from pathlib import Path

import pytest
from markupsafe import Markup

from trimodal.errors import StorageError
from trimodal.evaluation.sheet import Chapter, Sheet, Table, write_sheet


def test_text_is_escaped_and_figures_are_not(tmp_path: Path) -> None:
    sheet = Sheet(
        "a < b",
        tables=[Table("T", ["", "<x>"], [["row", "1 & 2"]])],
        chapters=[Chapter("C", [("<name>", Markup("<svg></svg>"))])],
        lines=["one", "<two>"],
    )
    write_sheet(tmp_path / "page.html", sheet)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>a &lt; b</title>" in page
    assert "<td>1 &amp; 2</td>" in page
    assert "&lt;x&gt;" in page
    assert "&lt;name&gt;" in page
    assert "&lt;two&gt;" in page
    assert "<svg></svg>" in page


def test_a_place_that_takes_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder"):
        write_sheet(tmp_path / "nowhere" / "page.html", Sheet("x"))
