"""A real `trimodal serve` in a process of its own, for clients of others that are not changed.

def test_something(served: str, model: TrimodalModel) -> None: ...
"""

import io
import os
import re
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from trimodal.models import TrimodalModel
from trimodal.testing import tiny_model

ROOT = Path(__file__).parents[2]
NAME = "tiny"


@pytest.fixture(scope="session")
def model() -> TrimodalModel:
    """What the server serves."""
    return tiny_model()


@pytest.fixture(scope="session")
def served(model: TrimodalModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server, which must end cleanly when it is told to."""
    folder = tmp_path_factory.mktemp("served")
    model.save_pretrained(folder / "model")
    roots = [str(ROOT / name) for name in ("src", "kernels", "serving")]
    # speech amplifies the last bits, which the number of threads changes
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots), **threads}
    command = [sys.executable, "-m", "trimodal", "serve", str(folder / "model"), "--port", "0"]
    command += ["--name", NAME, "--indexes", str(folder / "indexes")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    try:
        yield _address(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def _address(process: subprocess.Popen[str]) -> str:
    """What the one line of the server says."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(180), "the server said nothing"
    line = process.stdout.readline()
    found = re.search(r"at (http://\S+),", line)
    assert found is not None, line
    return found[1]


@pytest.fixture(scope="session")
def png() -> bytes:
    """A picture of 9 x 7 pixels."""
    pixels = np.arange(9 * 7 * 3, dtype=np.uint8).reshape(7, 9, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def wav() -> bytes:
    """Half a second of a tone at 16 kHz."""
    stream = io.BytesIO()
    tone = 0.3 * np.sin(np.arange(8_000) * 0.1)
    soundfile.write(stream, tone, 16_000, format="WAV", subtype="PCM_16")
    return stream.getvalue()
