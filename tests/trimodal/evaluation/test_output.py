import json
import os
import stat
from pathlib import Path

import pytest

from trimodal.errors import StorageError
from trimodal.evaluation.output import check_writable, write_json, write_whole


def test_a_file_is_replaced_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]
    reference = tmp_path / "plain"
    reference.write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(reference.stat().st_mode)


def test_a_failed_write_leaves_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.bin"
    write_whole(path, b"former")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"x.bin cannot be written: No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"there is no folder .*nowhere$"):
        check_writable(tmp_path / "nowhere" / "x.json")
    with pytest.raises(StorageError, match="it is a folder"):
        check_writable(tmp_path)


def test_json_is_readable_and_strict(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    tree = {"七": 0.5, "path": os.fsdecode(b"\xff.jsonl")}
    write_json(path, tree)
    assert "七" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == tree
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
