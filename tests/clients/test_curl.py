"""What docs/serving.md shows with curl does what it says."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimodal.models import TrimodalModel


def curl(*arguments: str) -> bytes:
    program = shutil.which("curl")
    assert program is not None, "the tests need curl"
    return subprocess.run([program, "-sS", *arguments], capture_output=True, check=True).stdout


def sent(url: str, tree: dict[str, Any], *arguments: str) -> Any:
    header = "content-type: application/json"
    return json.loads(curl(url, "-H", header, "-d", json.dumps(tree), *arguments))


@pytest.fixture
def picture(tmp_path: Path, png: bytes) -> Path:
    (tmp_path / "a.png").write_bytes(png)
    return tmp_path / "a.png"


def test_files_in_floats_out(served: str, model: TrimodalModel, picture: Path, png: bytes) -> None:
    parts = ["-F", "model=tiny", "-F", f"file=@{picture}", "-F", "text=a red square"]
    accept = ["-H", "accept: application/octet-stream"]
    data = curl(f"{served}/v1/embeddings", *parts, *accept)
    expected = model.embed(image=[png, None], text=[None, "a red square"])["fused"]
    assert np.abs(np.frombuffer(data, "<f4").reshape(2, 16) - expected).max() < 1e-5


def test_an_index_from_its_making_to_its_end(served: str) -> None:
    index = f"{served}/v1/indexes"
    assert sent(index, {"name": "pets", "fields": {"year": "integer"}})["items"] == 0
    items = [
        {"id": "a", "input": "a red square", "metadata": {"year": 2024}},
        {"id": "b", "input": "blue", "metadata": {"year": 2025}},
    ]
    assert sent(f"{index}/pets/items", {"model": "tiny", "items": items})["put"] == 2
    tree: dict[str, Any] = {"model": "tiny", "index": "pets", "query": "blue"}
    data = sent(f"{served}/v1/search", tree)["data"]
    assert [one["id"] for one in data] == ["b", "a"]
    tree["filter"] = {"year": {"lt": 2025}}
    assert [one["id"] for one in sent(f"{served}/v1/search", tree)["data"]] == ["a"]
    assert json.loads(curl("-X", "DELETE", f"{index}/pets"))["deleted"]


@pytest.mark.parametrize("path", ["/v1/indexes/../../etc", "/v1/nothing", "/v2/models/x/infer"])
def test_every_refusal_has_the_envelope(served: str, path: str) -> None:
    tree = json.loads(curl("--path-as-is", f"{served}{path}"))
    assert set(tree["error"]) == {"message", "type", "param", "code"}
