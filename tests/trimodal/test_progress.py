"""Rows are counted off a terminal too."""

from collections.abc import Iterator

import pytest

from trimodal import progress
from trimodal.progress import Progress


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_the_last_row_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(3, "read", shown=True) as bar:
        assert list(bar.counted("abc")) == ["a", "b", "c"]
    assert lines(capsys) == ["read 3 of 3 rows"]


def test_how_many_there_are_need_not_be_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0.0)
    with Progress(None, "read", shown=True) as bar:
        bar.advance()
        bar.advance(4)
    assert lines(capsys) == ["read 1 rows", "read 5 rows"]


def test_the_end_is_told_where_it_was_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(None, "read", shown=True) as bar:
        bar.advance(5)
        bar.advance(2)
    assert lines(capsys) == ["read 7 rows"]


def test_the_end_of_what_failed_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise KeyError

    with pytest.raises(KeyError), Progress(None, "read", shown=True) as bar:
        list(bar.counted(rows()))
    assert bar.done == 1
    assert lines(capsys) == []


def test_a_row_is_counted_when_the_next_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(2, "read", shown=True) as bar:
        rows = bar.counted("ab")
        next(rows)
        assert bar.done == 0
        next(rows)
        assert bar.done == 1
    assert lines(capsys) == []


def test_nothing_is_said_unless_it_is_to_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(2, "read", shown=False) as bar:
        bar.advance(2)
    assert lines(capsys) == []


def test_a_note_is_told_with_the_count_and_a_line_by_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress(2, "read", shown=True) as bar:
        bar.advance(2, "loss 0.5")
        bar.say("half is done")
    assert lines(capsys) == ["read 2 of 2 rows, loss 0.5", "half is done"]
    with Progress(2, "read", shown=False) as bar:
        bar.advance(2, "loss 0.5")
        bar.say("half is done")
    assert lines(capsys) == []
