import builtins
import errno
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from trimodal import storage
from trimodal.errors import DataError, StorageError
from trimodal.storage import (
    OPEN_FILES,
    PAUSES,
    ShardFile,
    are_same,
    beside,
    check_writable,
    is_file,
    is_used,
    make_folder,
    names_in,
    open_binary,
    parent_of,
    read_bytes,
    read_range,
    read_source,
    remove_tree,
    replacing,
    resolved,
    size_of,
    under,
    write_json,
    write_whole,
)

CONTENT = bytes(range(256)) * 4


@pytest.fixture(params=["local", "remote"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A file by its path, and one that only fsspec can reach."""
    if request.param == "local":
        (tmp_path / "shard.tar").write_bytes(CONTENT)
        return str(tmp_path / "shard.tar")
    import fsspec

    path = f"memory://{tmp_path.name}/shard.tar"
    with fsspec.open(path, "wb") as file:
        file.write(CONTENT)  # pyright: ignore[reportAttributeAccessIssue]
    return path


def stored(address: str, offset: int, size: int) -> ShardFile:
    digest = hashlib.sha256(CONTENT[offset : offset + size]).hexdigest()
    return ShardFile(address, offset, size, digest)


def test_files_and_ranges_are_read(address: str) -> None:
    assert read_bytes(address) == CONTENT
    assert size_of(address) == len(CONTENT)
    assert read_range(address, 100, 7) == CONTENT[100:107]
    assert read_range(address, len(CONTENT) - 3, 100) == CONTENT[-3:]
    assert stored(address, 300, 20).read() == CONTENT[300:320]
    with open_binary(address) as file:
        assert file.readline(5) == CONTENT[:5]
        assert file.readline() == CONTENT[5:11]


def test_other_bytes_are_refused_with_their_place(address: str) -> None:
    part = ShardFile(address, 10, 5, hashlib.sha256(b"other").hexdigest())
    with pytest.raises(DataError) as caught:
        part.read()
    assert str(caught.value) == f"{address}: bytes 10 to 15 are not what was imported"


def test_what_is_missing_is_named(address: str) -> None:
    missing = address.replace("shard", "nothing")
    with pytest.raises(DataError, match=r"nothing\.tar cannot be read"):
        ShardFile(missing, 0, 1, "").read()
    for read in (read_bytes, size_of, open_binary):
        with pytest.raises(StorageError, match=r"nothing\.tar cannot be read"):
            read(missing)


def test_a_file_system_that_is_not_there_is_named() -> None:
    with pytest.raises(StorageError, match=r"nowhere://bucket/x cannot be read: .*nowhere"):
        read_bytes("nowhere://bucket/x")


def test_equal_bytes_are_one_medium_wherever_they_lie(address: str) -> None:
    assert CONTENT[:9] == CONTENT[256:265]
    first, second = stored(address, 0, 9), stored(address, 256, 9)
    assert first == second
    assert len({first, second}) == 1
    assert first != stored(address, 1, 9)


def test_many_shards_are_read_with_few_open_files(tmp_path: Path) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    for i in range(OPEN_FILES + 40):
        path = tmp_path / f"{i}.tar"
        path.write_bytes(bytes([i]))
        assert read_range(str(path), 0, 1) == bytes([i])
    assert opened() - before <= OPEN_FILES


def test_names_begin_where_the_manifest_lies() -> None:
    assert beside("a/index.jsonl", "shard-0.tar") == "a/shard-0.tar"
    assert beside("s3://b/c/index.jsonl", "shard-0.tar") == "s3://b/c/shard-0.tar"


def test_links_lead_to_one_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert resolved(tmp_path / "b") == resolved(tmp_path / "a")
    part = ShardFile("s.tar", 0, 1, "")
    assert resolved(part) is part


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


@pytest.fixture(params=["local", "remote"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that is not there yet."""
    return f"memory://{tmp_path.name}/made" if request.param == "remote" else str(tmp_path / "made")


def test_files_are_written_where_an_address_says(place: str) -> None:
    path = under(place, "part", "x.bin")
    assert not is_used(place)
    make_folder(parent_of(path))
    assert not is_file(path)
    with replacing(path) as file:
        file.write(b"abc")
        file.seek(0)
        assert file.read() == b"abc"
        assert not is_file(path)
    write_json(under(place, "x.json"), [1])
    assert read_bytes(path) == b"abc"
    assert is_used(place)
    assert names_in(place) == ["part", "x.json"]
    assert are_same(path, f"{place}/part/x.bin")
    assert not are_same(path, under(place, "x.json"))
    remove_tree(parent_of(path))
    assert not is_file(path)
    assert is_file(under(place, "x.json"))


def test_what_fails_half_way_leaves_nothing(place: str) -> None:
    path = under(place, "x.bin")
    make_folder(place)

    def write() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert not is_file(path)
    assert place.startswith("memory:") or not any(Path(place).iterdir())


def test_a_path_beside_an_address_may_lead_up() -> None:
    assert beside("s3://b/c/m.jsonl", "../d/shard-0.tar") == "s3://b/d/shard-0.tar"


def test_a_medium_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.png cannot be read: No such file"):
        read_source(tmp_path / "x.png")


class Failing:
    """A file system that refuses to read for some calls, and the pauses that are made."""

    def __init__(self, patch: pytest.MonkeyPatch, error: Exception, times: int) -> None:
        self.left, self.pauses = times, []
        for owner, name in ((os, "pread"), (MemoryFileSystem, "cat_file"), (builtins, "open")):
            patch.setattr(owner, name, self.instead_of(getattr(owner, name), error))
        patch.setattr(storage.time, "sleep", self.pauses.append)

    def instead_of(self, inner: Any, error: Exception) -> Any:
        def read(*arguments: Any, **options: Any) -> Any:
            if self.left:
                self.left -= 1
                raise error
            return inner(*arguments, **options)

        return read


REFUSALS = [OSError(errno.EIO, "Input/output error"), OSError(errno.EMFILE, "Too many open files")]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: errno.errorcode[error.errno])
def test_what_fails_for_a_moment_is_read_all_the_same(
    address: str, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing = Failing(patch, error, len(PAUSES))
        assert stored(address, 3, 5).read() == CONTENT[3:8]
        assert failing.pauses == list(PAUSES) == sorted(PAUSES)


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: errno.errorcode[error.errno])
def test_what_goes_on_failing_is_no_fault_of_the_data(
    address: str, error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "x.png"
    picture.write_bytes(CONTENT)
    for source in (stored(address, 3, 5), picture):
        with monkeypatch.context() as patch:
            Failing(patch, error, 1000)
            with pytest.raises(StorageError, match=f"cannot be read: {error.strerror}"):
                read_source(source)
    assert read_source(picture) == CONTENT


def test_a_server_that_fails_in_its_own_way_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(f"memory://{tmp_path.name}/s.tar", CONTENT)
    with monkeypatch.context() as patch:
        failing = Failing(patch, RuntimeError("the connection was reset"), 2)
        assert stored(f"memory://{tmp_path.name}/s.tar", 3, 5).read() == CONTENT[3:8]
        assert len(failing.pauses) == 2


def test_what_no_other_try_would_change_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"memory://{tmp_path.name}/s.tar"
    write_whole(path, CONTENT)
    with monkeypatch.context() as patch:
        # so s3fs says that a range lies behind the end
        failing = Failing(patch, OSError(errno.EINVAL, "InvalidRange"), 1)
        with pytest.raises(DataError, match="InvalidRange"):
            stored(path, 3, 5).read()
        with pytest.raises(StorageError, match="nowhere"):
            ShardFile("nowhere://b/s.tar", 0, 1, "").read()
        with pytest.raises(DataError, match="cannot be read: Is a directory"):
            read_source(tmp_path)
        assert failing.pauses == []


def test_a_file_that_ends_too_soon_is_not_what_was_imported(address: str) -> None:
    part = stored(address, 1000, 24)
    with pytest.raises(DataError, match="are not what was imported"):
        ShardFile(address, 1010, 24, part.sha256).read()


def test_the_folder_of_a_file_that_is_put_into_place_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a machine that stops may have neither the old name nor the new one."""
    synced: list[str] = []
    inner = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        inner(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write_whole(tmp_path / "x.bin", b"abc")
    assert synced[-1] == str(tmp_path)
    assert len(synced) == 2


def test_a_name_may_not_count_as_use(tmp_path: Path) -> None:
    (tmp_path / ".import").mkdir()
    assert is_used(tmp_path)
    assert not is_used(tmp_path, besides=".import")
    (tmp_path / "other").write_bytes(b"")
    assert is_used(tmp_path, besides=".import")


def test_a_file_system_that_fails_in_its_own_way_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NoCredentialsError(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise NoCredentialsError("unable to locate credentials")

    monkeypatch.setattr(MemoryFileSystem, "_open", fail)
    with pytest.raises(StorageError, match=r"memory://a/b cannot be read: unable to locate cred"):
        read_bytes("memory://a/b")
