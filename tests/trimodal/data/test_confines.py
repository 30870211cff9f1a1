import contextlib
from pathlib import Path

import pytest

from trimodal.data.confines import confined
from trimodal.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus" / "images").mkdir(parents=True)
    (tmp_path / "corpus" / "images" / "1.png").write_bytes(b"x")
    (tmp_path / "other.png").write_bytes(b"x")
    return tmp_path / "corpus"


@pytest.mark.parametrize("name", ["images/1.png", "images/../images/1.png", "not/there.png", "."])
def test_what_lies_in_the_folder_is_taken(folder: Path, name: str) -> None:
    assert confined(name, folder, "x:1") == folder / name
    assert confined(folder / name, folder, "x:1") == folder / name


@pytest.mark.parametrize("name", ["/etc/passwd", "../other.png", "images/../../other.png", ".."])
def test_what_leads_out_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"^x:1: '{name}' leads out of {folder}$"):
        confined(name, folder, "x:1")


def test_links_are_followed_only_within(folder: Path) -> None:
    (folder / "in.png").symlink_to("images/1.png")
    (folder / "out.png").symlink_to("../other.png")
    (folder.parent / "linked").symlink_to(folder)
    for place in (folder, folder.parent / "linked"):
        assert confined("in.png", place, "x:1") == place / "in.png"
        with pytest.raises(DataError, match=r"'out\.png' leads out of"):
            confined("out.png", place, "x:1")


def test_a_folder_is_where_it_is_now(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (folder.parent, folder):
        monkeypatch.chdir(place)
        assert confined("images/1.png", Path("."), "x:1").parts[0] == "images"
        with pytest.raises(DataError, match="leads out"):
            confined("../x", Path("."), "x:1")


def test_files_of_a_snapshot_are_links_to_blobs(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--x" / "snapshots" / "0a1b"
    for place in (snapshot, tmp_path / "datasets--x" / "blobs"):
        place.mkdir(parents=True)
    (snapshot / "1.png").symlink_to("../../blobs/77")
    (snapshot / "2.png").symlink_to("../../other")
    assert confined("1.png", snapshot, "x:1") == snapshot / "1.png"
    with pytest.raises(DataError, match="leads out"):
        confined("2.png", snapshot, "x:1")


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_what_is_no_name_is_told(folder: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"^x:1: 'a?\\(x00b|ud800)' cannot be read: .+$"):
        confined(name, folder, "x:1")


def test_links_in_a_circle_lead_nowhere(folder: Path) -> None:
    (folder / "circle").symlink_to("circle")
    with contextlib.suppress(DataError):  # from Python 3.13 on it is a path to nothing
        assert not confined("circle", folder, "x:1").exists()
