import pytest

from trimodal.bench.rows import format_rows, tried
from trimodal.bench.timing import Row, compare


def test_a_lost_row_is_shown_and_named() -> None:
    rows = [
        compare("won", 1.0, 3.0, 2.0),
        compare("lost", 2.0, 3.0, 2.0),
        compare("free", 2, 1, None),
    ]
    won, lost, free = format_rows(rows).splitlines()[1:]
    assert won.split() == ["won", "1", "3", "ms", "3.00", "2.00"]
    assert lost.split() == ["lost", "2", "3", "ms", "1.50", "2.00", "missed"]
    assert free.split() == ["free", "2", "1", "ms", "0.50"]


def test_a_group_that_fails_is_a_row_that_misses(capsys: pytest.CaptureFixture[str]) -> None:
    def measure() -> list[Row]:
        raise MemoryError("none left\nat all")

    (row,) = tried("losses", measure)
    assert (row.name, row.passes) == ("losses: MemoryError: none left", False)
    assert capsys.readouterr().err == "bench: losses: MemoryError: none left\n"
    assert tried("losses", lambda: [compare("won", 1, 2, None)])[0].name == "won"
