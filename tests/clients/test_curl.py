"""What docs/serving.md shows with curl does what it says."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimodal.models import TrimodalModel
from trimodal_serving.routes import ROUTES

PAGE = Path(__file__).parents[2] / "docs/serving.md"
FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = "".join(FENCE.findall(PAGE.read_text(encoding="utf-8")))
ADDRESS = "http://127.0.0.1:8000"


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


def test_the_commands_of_the_page_work(served: str, picture: Path, wav: bytes) -> None:
    (picture.parent / "a.wav").write_bytes(wav)
    assert COMMANDS.count(ADDRESS) == 1
    script = re.sub(r"\bdemo\b", "tiny", COMMANDS.replace(ADDRESS, served))
    found = subprocess.run(
        ["bash", "-euc", f'curl() {{ command curl -sS --fail-with-body "$@"; }}\n{script}'],
        cwd=picture.parent,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout[-400:] + found.stderr
    assert (picture.parent / "six.mp3").stat().st_size > 100


@pytest.mark.parametrize("path", [route.path for route in ROUTES if route.method == "POST"])
def test_the_page_has_a_command_for_every_path(path: str) -> None:
    if path == "/embeddings":  # /v1/embeddings
        return
    pattern = re.sub(r"\{[^}]*\}", "[^/ ]+", path)
    assert re.search(rf"^curl \$B{pattern} ", COMMANDS, re.MULTILINE)


def test_files_in_floats_out(served: str, model: TrimodalModel, picture: Path, png: bytes) -> None:
    parts = ["-F", "model=tiny", "-F", f"file=@{picture}", "-F", "text=a red square"]
    accept = ["-H", "accept: application/octet-stream"]
    data = curl(f"{served}/v1/embeddings", *parts, *accept)
    expected = model.embed(image=[png, None], text=[None, "a red square"])["fused"]
    assert np.abs(np.frombuffer(data, "<f4").reshape(2, 16) - expected).max() < 1e-5


def test_an_index_from_its_making_to_its_end(served: str) -> None:
    index = f"{served}/v1/indexes"
    assert sent(index, {"name": "animals", "fields": {"year": "integer"}})["items"] == 0
    items = [
        {"id": "a", "input": "a red square", "metadata": {"year": 2024}},
        {"id": "b", "input": "blue", "metadata": {"year": 2025}},
    ]
    assert sent(f"{index}/animals/items", {"model": "tiny", "items": items})["put"] == 2
    tree: dict[str, Any] = {"model": "tiny", "index": "animals", "query": "blue"}
    data = sent(f"{served}/v1/search", tree)["data"]
    assert [one["id"] for one in data] == ["b", "a"]
    tree["filter"] = {"year": {"lt": 2025}}
    assert [one["id"] for one in sent(f"{served}/v1/search", tree)["data"]] == ["a"]
    assert json.loads(curl("-X", "DELETE", f"{index}/animals"))["deleted"]


@pytest.mark.parametrize("path", ["/v1/indexes/../../etc", "/v1/nothing", "/v2/models/x/infer"])
def test_every_refusal_has_the_envelope(served: str, path: str) -> None:
    tree = json.loads(curl("--path-as-is", f"{served}{path}"))
    assert set(tree["error"]) == {"message", "type", "param", "code"}
