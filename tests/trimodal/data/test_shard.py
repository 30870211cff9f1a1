import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from trimodal.data.shard import Entry, ShardTask, write_shard
from trimodal.errors import DataError
from trimodal.storage import Source, make_folder

PICTURE, SOUND = b"\x89PNG and more", b"RIFF\0\0\0\0WAVE and more"


def entries(folder: Path, count: int) -> list[Entry]:
    (folder / "a.png").write_bytes(PICTURE)
    files: dict[str, Source | bytes] = {"image": folder / "a.png", "speech": SOUND}
    asked: Entry = ({"id": "q", "question": "which?"}, {**files, "question_speech": b"fLaC"})
    return [asked, *(({"id": str(i), "seen": {"by": [i, None]}}, files) for i in range(1, count))]


def written(folder: Path, count: int = 3) -> tuple[ShardTask, list[dict[str, Any]]]:
    make_folder(folder / "out" / ".import")
    task = ShardTask(str(folder / "out"), 2, 14, count, entries(folder, count))
    assert write_shard(task) == count
    return task, [json.loads(line) for line in Path(task.index).read_text().splitlines()]


def test_each_sample_has_a_key_and_its_files_beside_each_other(tmp_path: Path) -> None:
    written(tmp_path)
    with tarfile.open(tmp_path / "out" / "shard-00002.tar") as tar:
        members = tar.getmembers()
        row = json.load(tar.extractfile("000000015.json") or io.BytesIO())
    first = [f"000000014.{end}" for end in ("json", "png", "wav", "question.flac")]
    others = [f"00000001{i}.{end}" for i in (5, 6) for end in ("json", "png", "wav")]
    assert [member.name for member in members] == [*first, *others]
    assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}
    assert row == {"id": "1", "seen": {"by": [1, None]}}


def test_the_index_says_what_the_shard_is_and_where_media_lie(tmp_path: Path) -> None:
    task, (shard, *rows) = written(tmp_path)
    content = (tmp_path / "out" / task.name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert shard == {"name": task.name, "rows": 3, "size": len(content), "sha256": digest}
    for row in rows:
        for key, expected in (("image", PICTURE), ("speech", SOUND)):
            part = row[key]
            assert content[part["offset"] : part["offset"] + part["size"]] == expected
            assert part["sha256"] == hashlib.sha256(expected).hexdigest()
            assert part["shard"] == task.name


@pytest.mark.parametrize(
    ("content", "extension"),
    [(b"\xff\xd8\xff", "jpg"), (b"RIFF1234WEBP", "webp"), (b"OggS", "ogg"), (b"ID3", "mp3")],
)
def test_files_are_named_by_what_they_are(tmp_path: Path, content: bytes, extension: str) -> None:
    make_folder(tmp_path / ".import")
    write_shard(ShardTask(str(tmp_path), 0, 0, 1, [({"id": "a"}, {"image": content})]))
    with tarfile.open(tmp_path / "shard-00000.tar") as tar:
        assert tar.getnames() == ["000000000.json", f"000000000.{extension}"]


def test_a_medium_that_is_gone_is_named_and_leaves_no_shard(tmp_path: Path) -> None:
    make_folder(tmp_path / ".import")
    gone: list[Entry] = [({"id": "a"}, {"image": tmp_path / "gone.png"})]
    with pytest.raises(DataError, match=r"gone\.png cannot be read: No such file"):
        write_shard(ShardTask(str(tmp_path), 0, 0, 1, gone))
    assert [path.name for path in tmp_path.iterdir()] == [".import"]
    assert not any((tmp_path / ".import").iterdir())
