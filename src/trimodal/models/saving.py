"""Saving with transformers, which shows a bar though there is one file.

with no_bars(): model.save_pretrained("runs/mine/model")
"""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def no_bars() -> Iterator[None]:
    """Within it, transformers shows no bars; afterwards it is as it was."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
