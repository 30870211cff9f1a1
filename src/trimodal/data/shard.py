"""One shard: a tar of samples in the convention of webdataset, and its part of the index.

count = write_shard(ShardTask("shards/train", 0, 0, entries))
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from trimodal.data.row import MEDIA
from trimodal.schema import Natural
from trimodal.storage import Source, read_source, replacing, under, write_whole

PARTS = ".import"
"""The folder of what an import has done so far."""
QUESTION = "question."
"""What stands before the extension of a spoken question."""
KINDS = (
    (b"\x89PNG", 0, "png"),
    (b"\xff\xd8\xff", 0, "jpg"),
    (b"WEBP", 8, "webp"),
    (b"WAVE", 8, "wav"),
    (b"fLaC", 0, "flac"),
    (b"OggS", 0, "ogg"),
)
"""Bytes, where in a file they stand, and the extension they mean; what is left is MP3."""


Entry = tuple[dict[str, Any], dict[str, Source | bytes]]
"""A row as it is written, and its media by their keys."""


@dataclass(frozen=True)
class Shard:
    """One file of an import."""

    name: str
    rows: Natural
    size: Natural
    sha256: str


@dataclass(frozen=True)
class ShardTask:
    """A shard to be written."""

    folder: str
    """Of the import; a path or an address of fsspec."""
    number: int
    first: int
    """The place of its first row among all."""
    rows: int
    entries: Iterable[Entry]
    """Its rows, read where they are written."""

    @property
    def name(self) -> str:
        """Of the file."""
        return f"shard-{self.number:05d}.tar"

    @property
    def index(self) -> str:
        """The address of its part of the index, whose first line says what the shard is."""
        return under(self.folder, PARTS, f"{self.name}.jsonl")


def write_shard(task: ShardTask) -> int:
    """Write a shard, then its part of the index; the number of rows.

    Raises:
        DataError: a medium cannot be read.
        StorageError: the shard cannot be written.
    """
    lines = []
    with replacing(under(task.folder, task.name), under(task.folder, PARTS)) as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for place, (tree, files) in enumerate(task.entries, start=task.first):
                lines.append(_add(tar, f"{place:09d}", task.name, tree, files))
        size = file.tell()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    told = (asdict(Shard(task.name, len(lines), size, digest)), *lines)
    index = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in told)
    write_whole(task.index, index.encode())
    return len(lines)


def _add(
    tar: tarfile.TarFile,
    key: str,
    shard: str,
    tree: dict[str, Any],
    files: dict[str, Source | bytes],
) -> dict[str, Any]:
    """Add a sample to a shard; its row of the index."""
    row = dict(tree)
    told = {name: value for name, value in tree.items() if name not in MEDIA}
    _add_file(tar, f"{key}.json", json.dumps(told, ensure_ascii=False).encode())
    for name, source in files.items():
        content = source if isinstance(source, bytes) else read_source(source)
        between = QUESTION if name == "question_speech" else ""
        offset = _add_file(tar, f"{key}.{between}{_extension(content)}", content)
        digest = hashlib.sha256(content).hexdigest()
        row[name] = {"shard": shard, "offset": offset, "size": len(content), "sha256": digest}
    return row


def _add_file(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a member that says nothing of its time and owner; where its bytes begin."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    return tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _extension(content: bytes) -> str:
    for magic, place, extension in KINDS:
        if content[place : place + len(magic)] == magic:
            return extension
    return "mp3"
