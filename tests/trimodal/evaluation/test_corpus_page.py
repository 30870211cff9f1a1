from pathlib import Path

from trimodal.data import read_manifest
from trimodal.data.statistics import Statistics, measure
from trimodal.evaluation.corpus_page import MOST_ROWS, write_page
from trimodal.testing import write_tiny_manifest


def test_each_size_is_drawn(tmp_path: Path) -> None:
    rows = read_manifest(write_tiny_manifest(tmp_path / "data", rows=24))
    found = measure(rows)
    write_page(tmp_path / "page.html", "a corpus", found)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    drawn = len(found.seconds) + len(found.characters) + 2 + 1
    assert page.count("</svg>") == drawn
    assert "<title>a corpus</title>" in page
    assert "height, pixels" in page
    assert '<th scope="row">all</th><td>24</td>' in page


def test_a_corpus_of_texts_alone_and_of_many_labels(tmp_path: Path) -> None:
    found = Statistics(rows=90, characters={"en": [3] * 90})
    found.labels.update(str(i) for i in range(90))
    write_page(tmp_path / "page.html", "texts", found)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("</svg>") == 1
    assert f"and {90 - MOST_ROWS} more" in page
    assert "Hours" not in page
