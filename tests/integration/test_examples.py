"""The examples and the benchmark scripts run as they stand."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trimodal.testing import tiny_model, write_tiny_manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def run(ranks: Callable[..., str]) -> Callable[..., str]:
    """What a script of this repository prints."""
    return lambda script, *arguments: ranks(1, str(ROOT / script), *arguments)


def test_search(folder: Path, tmp_path: Path, run: Callable[..., str]) -> None:
    manifest = write_tiny_manifest(tmp_path / "data", rows=16)
    lines = run("examples/search.py", str(folder), str(manifest), "a red square").splitlines()
    assert [line.split()[0] for line in lines] == ["image"] * 5 + ["speech"] * 5


def test_finetune(folder: Path, tmp_path: Path, run: Callable[..., str]) -> None:
    manifest = str(write_tiny_manifest(tmp_path / "data", rows=16, complete=True))
    assert run("examples/finetune.py", str(folder), manifest, manifest).startswith("4 classes")


def test_compose_strings(tmp_path: Path, run: Callable[..., str]) -> None:
    source = write_tiny_manifest(tmp_path / "data", rows=40, complete=True)
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    for i, row in enumerate(rows):
        row |= {"label": str(i % 10), "group": str(i % 10), "speaker": f"s{i // 20}"}
        row |= {"image": rows[0]["image"], "speech": rows[0]["speech"]}
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "strings"
    run("benchmarks/compose_strings.py", str(source), str(out), "--samples", "6", "--longest", "4")
    made = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert len(made) == 6
    for row in made:
        assert row["group"] == row["label"]
        assert len(row["text"].split()) == len(row["label"]) == len(row["text_zh"])
        assert (out / row["image"]).is_file()
        assert (out / row["speech"]).is_file()


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run for minutes")
def test_what_needs_a_gpu_says_so(tmp_path: Path, host: Callable[..., list[int]]) -> None:
    command = [str(ROOT / "benchmarks/gpu.py"), "--out", str(tmp_path / "out")]
    assert host(command, tmp_path) == [2]
    assert (tmp_path / "stderr").read_text() == "gpu: error: PyTorch finds no GPU here\n"


def test_the_package_needs_no_installation() -> None:
    code = (
        f"import sys; sys.path[:0] = ['{ROOT}/src']; import trimodal; print(trimodal.__version__)"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT / "src")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "0+unknown\n"), done.stderr
