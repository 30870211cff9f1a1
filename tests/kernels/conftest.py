"""Operations by their Triton kernels; without a GPU in the interpreter, see `tests/conftest.py`."""

import pytest

from trimodal_kernels.dispatch import VARIABLE


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations run their Triton kernels, on a CPU in the interpreter."""
    monkeypatch.setenv(VARIABLE, "triton")
