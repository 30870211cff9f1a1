"""Which implementation is chosen."""

import pytest
import torch

from trimodal_kernels.dispatch import VARIABLE, chosen


@pytest.mark.parametrize(
    ("value", "device", "way"),
    [
        (None, "cpu", "cpu"),
        ("auto", "cpu", "cpu"),
        ("auto", "meta", "reference"),
        ("reference", "cpu", "reference"),
        ("triton", "cpu", "triton"),
    ],
)
def test_the_device_decides_unless_the_variable_does(
    value: str | None, device: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value:
        monkeypatch.setenv(VARIABLE, value)
    assert chosen(torch.device(device)) == way


def test_another_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "fast")
    with pytest.raises(ValueError, match="is auto, reference or triton, not fast"):
        chosen(torch.device("cpu"))
