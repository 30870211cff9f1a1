import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trimodal.config import RunConfig, load_config
from trimodal.errors import ConfigError, StorageError
from trimodal.training.run import RunDirectory


def test_a_second_holder_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with (
        RunDirectory(tmp_path / "run"),
        pytest.raises(ConfigError, match="in use"),
        RunDirectory(tmp_path / "run"),
    ):
        pass
    with RunDirectory(tmp_path / "run"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from trimodal.training.run import RunDirectory; "
        "RunDirectory(pathlib.Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    with RunDirectory(tmp_path):
        pass


def test_a_forked_process_does_not_keep_the_lock_of_a_killed_one(tmp_path: Path) -> None:
    """A loader process lived on with the lock, and the same command could not resume."""
    code = (
        "import os, sys, time, pathlib; from trimodal.training.run import RunDirectory; "
        "run = RunDirectory(pathlib.Path(sys.argv[1])).__enter__(); "
        "here, there = os.pipe(); "
        "pid = os.fork(); "
        "pid or (os.write(there, b'.'), time.sleep(60)); "
        "os.read(here, 1); "  # a process that begins a moment later keeps it no longer than that
        "pathlib.Path(sys.argv[1], 'child').write_text(str(pid)); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -9
    child = int((tmp_path / "child").read_text())
    os.kill(child, 0)  # it is still there
    with RunDirectory(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(StorageError, match="cannot be used"), RunDirectory(tmp_path / "run"):
        pass


def test_metrics_are_cut_back(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.metrics.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    run.cut(2)
    assert [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"5",
        b'{"step": "x"}',
        b'{"step": null}',
        b'{"step": true}',
        b'{"loss": 1}',
        b"\xff",
        b"[" * 100_000,
    ],
    ids=lambda line: line[:20],
)
def test_a_damaged_line_counts_as_cut(tmp_path: Path, line: bytes) -> None:
    run = RunDirectory(tmp_path)
    run.metrics.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n{"step": 3}\n')
    run.cut(2)
    assert run.metrics.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_folders_in_the_place_of_files_are_named(config: RunConfig, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.metrics.mkdir(parents=True)
    with pytest.raises(StorageError, match=r"metrics.jsonl cannot be cut: Is a directory"):
        run.cut(2)
    (run.path / "config.yaml").mkdir()
    with pytest.raises(StorageError, match=r"config.yaml cannot be written: Is a directory"):
        run.write_config(config)


def test_the_resolved_configuration_reads_back(config: RunConfig, tmp_path: Path) -> None:
    RunDirectory(tmp_path).write_config(config)
    assert load_config(tmp_path / "config.yaml") == config
