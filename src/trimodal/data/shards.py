"""A corpus as tar shards of the webdataset convention, and an index that is its manifest.

    summary = import_manifest("corpus/train.jsonl", "shards/train", workers=4)
    rows = read_manifest("shards/train")

A folder holds `shard-00000.tar` and so on, in which sample 17 is `000000017.json`, `.png`, `.flac`
and `.question.flac`; `index.jsonl`, the rows in their order, with shard, offset, size and SHA-256
in the place of each path; and `index.json`, the counts and hashes of all of these, written last.
The same manifest gives the same bytes, whatever the number of processes and of interruptions.
"""

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimodal.data.manifest import (
    INDEX,
    MEDIA,
    SUMMARY,
    Row,
    manifest_digest,
    read_manifest,
    read_trees,
)
from trimodal.errors import DataError, StorageError
from trimodal.storage import ShardFile, Source, read_bytes

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


@dataclass(frozen=True)
class Cuts:
    """Where one shard ends and the next begins."""

    rows: int = 10_000
    megabytes: int = 512
    """Of media; a shard has at least one row."""


@dataclass(frozen=True)
class Shard:
    """One file of an import."""

    name: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Imported:
    """What `index.json` says."""

    rows: int
    source: str
    """SHA-256 of the manifest that was imported."""
    index: str
    """SHA-256 of `index.jsonl`."""
    duplicates: int
    """Rows whose media and texts are those of a row before them."""
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class _Task:
    """A shard to be written."""

    folder: Path
    number: int
    first: int
    rows: Sequence[tuple[dict[str, Any], dict[str, Source]]]

    @property
    def name(self) -> str:
        return f"shard-{self.number:05d}.tar"


def import_manifest(
    manifest: str | Path,
    folder: str | Path,
    cuts: Cuts | None = None,
    workers: int = 1,
    progress: Callable[[int], object] = lambda _: None,
) -> Imported:
    """Write the shards of a manifest, or those that an interrupted import left.

    Args:
        manifest: the rows.
        folder: a new folder, or that of an import of the same manifest.
        cuts: how large shards are.
        workers: processes, each of which writes whole shards.
        progress: called with the number of rows of each shard that is there.

    Raises:
        DataError: `FILE:LINE: cause`, a row or a file cannot be used.
        StorageError: the folder holds something else, or cannot be written.
    """
    folder, cuts = Path(folder), cuts or Cuts()
    rows = read_manifest(manifest)
    plan = {"source": manifest_digest(manifest), **asdict(cuts)}
    try:
        if (done := _finished(folder, plan)) is not None:
            progress(done.rows)
            return done
        _prepare(folder, plan)
        tasks = list(_tasks(folder, rows, read_trees(manifest), cuts))
        left = [task for task in tasks if not (folder / PARTS / f"{task.name}.jsonl").exists()]
        for task in tasks:
            if task not in left:
                progress(len(task.rows))
        for written in _written(left, workers):
            progress(written)
        return _finish(folder, plan, tasks)
    except BrokenProcessPool:
        raise StorageError("a worker process ended early; fewer need less memory") from None
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error


def read_summary(folder: str | Path) -> Imported:
    """What `index.json` says.

    Raises:
        StorageError: it is not there or damaged, so the import was not finished.
    """
    path = f"{folder}/{SUMMARY}"
    try:
        tree = json.loads(read_bytes(path))
        shards = tuple(Shard(**shard) for shard in tree["shards"])
        named = {name: tree[name] for name in ("rows", "source", "index", "duplicates")}
        return Imported(**named, shards=shards)
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is damaged: {error}") from error


def _finished(folder: Path, plan: dict[str, Any]) -> Imported | None:
    if not (folder / SUMMARY).exists():
        return None
    found = read_summary(folder)
    if found.source != plan["source"]:
        raise StorageError(f"{folder} holds the import of another manifest; name another folder")
    return found


def _prepare(folder: Path, plan: dict[str, Any]) -> None:
    """A folder in which an import can begin or go on."""
    known = folder / PARTS / "plan.json"
    if known.exists():
        if json.loads(known.read_text(encoding="utf-8")) != plan:
            raise StorageError(
                f"{folder} holds an unfinished import of another manifest, or with other sizes of "
                "shards; remove it or name another folder"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise StorageError(f"{folder} is not empty and no import; name another folder")
    else:
        known.parent.mkdir(parents=True)
        _write_whole(known, json.dumps(plan).encode())


def _tasks(
    folder: Path, rows: Sequence[Row], trees: Sequence[dict[str, Any]], cuts: Cuts
) -> Iterator[_Task]:
    chosen: list[tuple[dict[str, Any], dict[str, Source]]] = []
    first, number, size = 0, 0, 0
    for row, tree in zip(rows, trees, strict=True):
        files = {key: path for key in MEDIA if (path := getattr(row, key)) is not None}
        own = sum(p.size if isinstance(p, ShardFile) else p.stat().st_size for p in files.values())
        if chosen and (len(chosen) == cuts.rows or size + own > cuts.megabytes * 2**20):
            yield _Task(folder, number, first, chosen)
            chosen, first, number, size = [], first + len(chosen), number + 1, 0
        chosen.append((tree, files))
        size += own
    yield _Task(folder, number, first, chosen)


def _written(tasks: Sequence[_Task], workers: int) -> Iterator[int]:
    if workers <= 1 or len(tasks) <= 1:
        yield from map(_write, tasks)
        return
    ignore = (signal.SIGINT, signal.SIG_IGN)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=signal.signal, initargs=ignore)
    try:
        yield from pool.map(_write, tasks)
    finally:
        pool.shutdown(cancel_futures=True)


def _write(task: _Task) -> int:
    """Write a shard, then its part of the index, whose first line says what the shard is."""
    partial = task.folder / PARTS / task.name
    lines = []
    with partial.open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for place, (tree, files) in enumerate(task.rows, start=task.first):
            lines.append(_add(tar, f"{place:09d}", task.name, tree, files))
        tar.close()
        file.flush()
        os.fsync(file.fileno())
    with partial.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    shard = Shard(task.name, len(lines), partial.stat().st_size, digest)
    os.replace(partial, task.folder / task.name)
    told = (asdict(shard), *lines)
    index = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in told)
    _write_whole(task.folder / PARTS / f"{task.name}.jsonl", index.encode())
    return len(lines)


def _add(
    tar: tarfile.TarFile, key: str, shard: str, tree: dict[str, Any], files: dict[str, Source]
) -> dict[str, Any]:
    """Add a sample to a shard; its row of the index."""
    row = dict(tree)
    told = {name: value for name, value in tree.items() if name not in MEDIA}
    _add_file(tar, f"{key}.json", json.dumps(told, ensure_ascii=False).encode())
    for name, source in files.items():
        try:
            content = source.read() if isinstance(source, ShardFile) else source.read_bytes()
        except OSError as error:
            raise DataError(f"{source} cannot be read: {error.strerror}") from error
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


def _finish(folder: Path, plan: dict[str, Any], tasks: Sequence[_Task]) -> Imported:
    """Join the parts of the index, and say what there is."""
    joined, shards = hashlib.sha256(), []
    seen: dict[str, str] = {}
    copies: list[tuple[str, str]] = []
    rows = 0
    with (folder / PARTS / INDEX).open("wb") as index:
        for task in tasks:
            first_line, part = (folder / PARTS / f"{task.name}.jsonl").read_bytes().split(b"\n", 1)
            shards.append(Shard(**json.loads(first_line)))
            index.write(part)
            joined.update(part)
            for line in part.splitlines():
                row = json.loads(line)
                first = seen.setdefault(_content(row), row["id"])
                if first != row["id"]:
                    copies.append((row["id"], first))
            rows += len(task.rows)
        index.flush()
        os.fsync(index.fileno())
    os.replace(folder / PARTS / INDEX, folder / INDEX)
    if copies:
        told = "".join(json.dumps({"id": a, "same_as": b}) + "\n" for a, b in copies)
        _write_whole(folder / "duplicates.jsonl", told.encode())
    done = Imported(rows, plan["source"], joined.hexdigest(), len(copies), tuple(shards))
    _write_whole(folder / SUMMARY, (json.dumps(asdict(done), indent=1) + "\n").encode())
    shutil.rmtree(folder / PARTS)
    return done


def _content(row: dict[str, Any]) -> str:
    """What two rows share exactly when their media and texts are the same."""
    told = {key: value for key, value in row.items() if key != "id"}
    for key in MEDIA:
        if key in told:
            told[key] = told[key]["sha256"]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
