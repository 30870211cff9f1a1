"""What holds for every test: fixed seeds, and nothing fetched from a model hub.

pytest tests/kernels
"""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if not Path("/dev/nvidiactl").exists():
    # without a GPU Triton interprets its kernels; it must know before anything imports it
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed torch where it is loaded already; tests that do without it stay quick."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
