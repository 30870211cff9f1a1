import pytest

from trimodal.bench import attention
from trimodal.bench.attention import attention_rows


def test_each_shape_has_its_time_and_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "SHAPES", ((9, 2, 2.0),))
    rows = attention_rows(rounds=1)
    assert [row.unit for row in rows] == ["ms", "relative"] * 2
    assert [row.gate for row in rows] == [2.0, 1 / 1.5, None, 1 / 1.5]
    assert all(row.passes for row in rows if row.unit == "relative")
    assert 1e-4 < rows[1].ours < 1e-2
    assert rows[3].ours < 1e-5
