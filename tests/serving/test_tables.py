from pathlib import Path

import pytest

from trimodal_serving.tables import erase, sweep, table_names


def made(path: Path, *files: str) -> None:
    path.mkdir()
    for name in files:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"x")


def test_what_was_only_begun_is_no_table(tmp_path: Path) -> None:
    made(tmp_path / "whole.lance", "_versions/1.manifest", "_transactions/0.txn", "data/a.lance")
    made(tmp_path / "empty.lance", "_versions/1.manifest")
    made(tmp_path / "nothing.lance")
    made(tmp_path / "begun.lance", "_transactions/0.txn", "_versions/1.manifest#1")
    made(tmp_path / "theirs.lance", "precious.txt")
    made(tmp_path / "other", "_versions/1.manifest")
    assert table_names(tmp_path) == ["empty", "theirs", "whole"]


def test_a_table_goes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(_: Path, *, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise KeyboardInterrupt

    for name in ("a", "b"):
        made(tmp_path / f"{name}.lance", "_versions/1.manifest")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", cut_off)
        with pytest.raises(KeyboardInterrupt):
            erase(tmp_path, "a")
    assert table_names(tmp_path) == ["b"]
    made(tmp_path / "a.lance", "_versions/1.manifest")
    erase(tmp_path, "a")
    erase(tmp_path, "a")
    assert [path.name for path in tmp_path.iterdir()] == ["b.lance"]


def test_what_is_left_is_swept(tmp_path: Path) -> None:
    made(tmp_path / "a.gone", "_versions/1.manifest")
    made(tmp_path / "b.lance", "_versions/1.manifest")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["b.lance"]
