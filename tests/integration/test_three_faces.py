"""Python, the command line and HTTP give the same numbers for the same inputs.

pytest tests/integration/test_three_faces.py
"""

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import trimodal
from trimodal.cli import main
from trimodal.data import Row, read_manifest
from trimodal.testing import (
    assert_close,
    tiny_model,
    write_tiny_manifest,
)
from trimodal_serving.app import create_app
from trimodal_serving.engine import Engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def data_url(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def content(row: Row) -> dict[str, Any]:
    """A row as one input of several parts."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": t} for t in row.texts.values()]
    if isinstance(row.image, Path):
        url = data_url(row.image, "image/png")
        parts.append({"type": "image_url", "image_url": {"url": url}})
    if isinstance(row.speech, Path):
        data = base64.b64encode(row.speech.read_bytes()).decode()
        parts.append({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
    return {"content": parts}


def test_the_same_numbers_through_all_three(folder: Path, tmp_path: Path) -> None:
    manifest = write_tiny_manifest(tmp_path / "data", rows=16)
    rows = read_manifest(manifest)
    columns: dict[str, Any] = {
        "image": [row.image for row in rows],
        "text": [next(iter(row.texts.values()), None) for row in rows],
        "speech": [row.speech for row in rows],
    }
    python = trimodal.load(folder).embed(**columns)

    out = tmp_path / "vectors.npz"
    arguments = [str(folder), "--data", str(manifest), "--out", str(out), "--token-budget", "50"]
    assert main(["embed", *arguments]) == 0
    with np.load(out) as file:
        assert file["id"].tolist() == [row.id for row in rows]
        for name, vectors in python.items():
            assert_close(file[name], vectors, "packed-vs-alone-fp32")

    app = create_app({"tiny": Engine(lambda: trimodal.load(folder), token_budget=70)}, 2**25)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.05)
        body = {"model": "tiny", "input": [content(row) for row in rows]}
        answer = client.post("/v1/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        served = [item["embedding"] for item in answer.json()["data"]]
        assert_close(served, python["fused"], "served-vs-offline")
        alone = client.post("/v1/embeddings", json={"model": "tiny", "input": columns["text"][0]})
        assert_close(alone.json()["data"][0]["embedding"], python["text"][0], "served-vs-offline")
