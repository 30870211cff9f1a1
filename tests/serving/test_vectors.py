import base64
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields
from trimodal_serving.vectors import DTYPES, check_packs, quantised, take_dimensions, written


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    left, right = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(axis=1) / norms


def test_the_server_s_own_process_needs_no_transformers() -> None:
    # the event loop would stand still for seconds at the first request
    code = (
        "import asyncio, sys\n"
        "import numpy as np\n"
        "import trimodal_serving.remote\n"
        "from types import SimpleNamespace\n"
        "from trimodal.batch import Modality\n"
        "from trimodal_serving.engine import Embedding\n"
        "from trimodal_serving.inputs import parse_inputs\n"
        "from trimodal_serving.vectors import embed\n"
        "async def one(_): return [Embedding(np.array([0.6, 0.8]), {Modality.TEXT: 1})]\n"
        "asyncio.run(embed(SimpleNamespace(embed=one), parse_inputs('red')))\n"
        "print([name for name in ('transformers', 'torchvision') if name in sys.modules])\n"
    )
    paths = [path for path in sys.path if path.endswith(("/src", "/kernels", "/serving"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert result.stdout == "[]\n"


def test_bytes_keep_the_direction(vectors: np.ndarray) -> None:
    small = quantised(vectors, "int8")
    assert small.dtype == np.int8
    assert (np.abs(small.astype(int)).max(axis=1) == 127).all()
    assert cosines(small, vectors).min() > 0.9995
    assert (quantised(vectors, "uint8").astype(int) - 128 == small).all()


def test_bits_are_the_signs_from_the_highest_on(vectors: np.ndarray) -> None:
    bits = quantised(vectors, "ubinary")
    assert bits.shape == (64, 16)
    assert (np.unpackbits(bits, axis=1) == (vectors >= 0)).all()
    assert (quantised(vectors, "binary").astype(int) + 128 == bits).all()
    row = np.array([[1, -1, 0, -1, -1, -1, -1, 2]], np.float32)
    assert quantised(row, "ubinary").tolist() == [[0b10100001]]
    assert quantised(row, "binary").tolist() == [[0b10100001 - 128]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_writings_say_the_same(vectors: np.ndarray, dtype: str) -> None:
    row = quantised(vectors, dtype)[3]
    packed = base64.b64decode(json.loads(written(row, as_base64=True)))
    assert np.array(json.loads(written(row)), row.dtype).tolist() == row.tolist()
    assert np.frombuffer(packed, row.dtype).tolist() == row.tolist()


def test_bits_fill_bytes() -> None:
    check_packs(64, "binary", "dimensions")
    check_packs(12, "int8", "dimensions")
    with pytest.raises(ServingError, match="multiple of 8"):
        check_packs(12, "ubinary", "dimensions")


def test_dimensions_have_more_than_one_name() -> None:
    assert take_dimensions(Fields({}), (8, 16), "dimensions") == 16
    names = ("dimensions", "output_dimension")
    assert take_dimensions(Fields({"output_dimension": 8}), (8, 16), *names) == 8
    with pytest.raises(ServingError, match="`output_dimension` of this model must be one of 8, 16"):
        take_dimensions(Fields({"output_dimension": 9}), (8, 16), *names)
