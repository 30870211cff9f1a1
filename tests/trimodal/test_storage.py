import hashlib
from pathlib import Path

import pytest

from trimodal.errors import DataError, StorageError
from trimodal.storage import (
    OPEN_FILES,
    ShardFile,
    beside,
    open_binary,
    read_bytes,
    read_range,
    resolved,
    size_of,
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
