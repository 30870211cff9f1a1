"""What holds for every test: fixed seeds, and nothing fetched from a model hub.

pytest tests/kernels
"""

import os
import sys

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed torch where it is loaded already; tests that do without it stay quick."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
