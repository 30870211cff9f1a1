from pathlib import Path

import pytest
from transformers.utils import logging

from trimodal.models.saving import no_bars
from trimodal.testing import tiny_model


def test_saving_a_model_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny_model().save_pretrained(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_bars_are_afterwards_as_they_were() -> None:
    assert logging.is_progress_bar_enabled()
    with no_bars():
        assert not logging.is_progress_bar_enabled()
    with pytest.raises(KeyError), no_bars():
        raise KeyError
    assert logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with no_bars():
            pass
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()
