"""A corpus as tar shards of the webdataset convention, and an index that is its manifest.

    summary = import_manifest("corpus/train.jsonl", "shards/train", workers=Processes(4))
    rows = read_manifest("shards/train")

A folder holds `shard-00000.tar` and so on, in which sample 17 is `000000017.json`, `.png`, `.flac`
and `.question.flac`; `index.jsonl`, the rows in their order, with shard, offset, size and SHA-256
in the place of each path; and `index.json`, the counts and hashes of all of these, written last.
The same rows give the same bytes, whatever the workers and the interruptions.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from trimodal.config import LANGUAGES
from trimodal.data.manifest import INDEX, SUMMARY, read_whole
from trimodal.data.row import MEDIA, language_of
from trimodal.data.shard import PARTS, Entry, Shard, ShardTask, write_shard
from trimodal.errors import ConfigError, PathError, StorageError
from trimodal.lock import Lock
from trimodal.schema import Count, Natural, parse
from trimodal.storage import (
    Source,
    is_file,
    is_remote,
    is_used,
    make_folder,
    read_bytes,
    read_data,
    remove_tree,
    replacing,
    size_of,
    under,
    write_whole,
)
from trimodal.workers import Processes, Workers

TEXTS = (*(f"text_{lang}" for lang in LANGUAGES), "references", "question", "answer")
"""Keys of texts besides `text`, which is one of the first."""


@dataclass(frozen=True)
class Cuts:
    """Where one shard ends and the next begins."""

    rows: Count = 10_000
    megabytes: Count = 512
    """Of media; a shard has at least one row."""


@dataclass(frozen=True)
class Imported:
    """What `index.json` says."""

    rows: Natural
    source: str
    """SHA-256 of what was imported."""
    index: str
    """SHA-256 of `index.jsonl`."""
    duplicates: Natural
    """Rows whose media and texts are those of a row before them."""
    shards: tuple[Shard, ...]
    cuts: Cuts | None = None
    """None if the version that imported did not write them down."""


class Corpus(Protocol):
    """What can be imported; a manifest, or a table (`trimodal.data.tables`)."""

    @property
    def digest(self) -> str:
        """SHA-256 of all that the shards depend on, in hexadecimal."""
        ...

    @property
    def count(self) -> int:
        """Rows, told at once."""
        ...

    def sizes(self) -> Sequence[int]:
        """Bytes of the media of each row, all of which were checked."""
        ...

    def part(self, first: int, count: int) -> Iterable[Entry]:
        """Rows from `first` on; picklable, and read where they are iterated."""
        ...


class Listed:
    """A manifest.

    Raises:
        DataError: `FILE:LINE: cause` of the first bad row, or the file is missing or has no row.
        StorageError: it cannot be read now.
    """

    def __init__(self, manifest: str | Path) -> None:
        whole = read_whole(manifest, trees=True)
        self.digest = whole.digest
        self.entries: list[Entry] = [
            (tree, {key: path for key in MEDIA if (path := getattr(row, key)) is not None})
            for row, tree in zip(whole.rows, whole.trees, strict=True)
        ]

    @property
    def count(self) -> int:
        """Rows."""
        return len(self.entries)

    def sizes(self) -> list[int]:
        """Bytes of the media of each row."""
        return [sum(map(_size, files.values())) for _, files in self.entries]

    def part(self, first: int, count: int) -> list[Entry]:
        """Rows from `first` on."""
        return self.entries[first : first + count]


def _size(source: Source | bytes) -> int:
    if isinstance(source, bytes):
        return len(source)
    return size_of(source) if isinstance(source, Path) else source.size


def import_manifest(
    manifest: str | Path,
    folder: str | Path,
    cuts: Cuts | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Imported:
    """Write the shards of a manifest; the arguments and errors are those of `import_corpus`."""
    return import_corpus(Listed(manifest), folder, cuts, workers, progress)


def import_corpus(
    corpus: Corpus,
    folder: str | Path,
    cuts: Cuts | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Imported:
    """Write the shards of a corpus, or those that an interrupted import left.

    Args:
        corpus: the rows.
        folder: a new folder, or that of an import of the same corpus; workers on other machines
            need it there too, or an address of fsspec.
        cuts: how large shards are.
        workers: each writes whole shards; this process if none are given.
        progress: called with the number of rows of each shard that is there.

    Raises:
        ConfigError: another process of this machine imports into the folder.
        DataError: a file cannot be used.
        PathError: the folder holds something else.
        StorageError: it cannot be written.
    """
    folder, cuts = str(folder), cuts or Cuts()
    with _alone(folder):
        if (done := _finished(folder, corpus.digest, cuts)) is not None:
            progress(done.rows)
            return done
        return _written(corpus, folder, cuts, workers, progress)


def _alone(folder: str) -> AbstractContextManager[object]:
    """Nobody else on this machine imports into a folder; at an address there are no locks."""
    if is_remote(folder) or Path(folder).is_file():  # the latter is refused below
        return nullcontext()
    make_folder(folder)
    return Lock(Path(folder), folder)


def _written(
    corpus: Corpus,
    folder: str,
    cuts: Cuts,
    workers: Workers | None,
    progress: Callable[[int], object],
) -> Imported:
    """Write what is not there yet; the arguments are those of `import_corpus`."""
    plan = {"source": corpus.digest, **asdict(cuts)}
    _prepare(folder, plan)
    tasks = list(_tasks(folder, corpus, cuts))
    left = []
    for task in tasks:
        if _is_written(task):
            progress(task.rows)
        else:
            left.append(task)
    for written in (workers or Processes()).map(_writer, left):
        progress(written)
    return _finish(folder, plan["source"], cuts, tasks)


def _is_written(task: ShardTask) -> bool:
    """Whether a shard and its part of the index are there; hashes are for `verify`."""
    address = under(task.folder, task.name)
    if not is_file(task.index) or not is_file(address):
        return False
    try:
        shard, _ = _part(task)
    except (ValueError, TypeError):  # a disk may have lost what it had said to hold
        return False
    return size_of(address) == shard.size


def _part(task: ShardTask) -> tuple[Shard, bytes]:
    """What a part of the index says of its shard, and its rows."""
    first_line, _, rows = read_bytes(task.index).partition(b"\n")
    return Shard(**json.loads(first_line)), rows


def _writer() -> Callable[[ShardTask], int]:
    return write_shard


def read_summary(folder: str | Path) -> Imported:
    """What `index.json` says.

    Raises:
        DataError: it is not there, so nothing was imported or it was not finished.
        StorageError: it is damaged, or cannot be read now.
    """
    path = under(folder, SUMMARY)
    try:
        return parse(Imported, json.loads(read_data(path)), "")
    except (ValueError, ConfigError, RecursionError) as error:
        raise StorageError(f"{path} is damaged: {error}") from error


def _finished(folder: str, source: str, cuts: Cuts) -> Imported | None:
    if not is_file(under(folder, SUMMARY)):
        return None
    found = read_summary(folder)
    if found.source != source:
        raise PathError(
            f"{folder} holds the import of another corpus or of other columns; name another folder"
        )
    if found.cuts not in (None, cuts):
        raise PathError(
            f"{folder} holds the import with shards of at most {found.cuts.rows} rows and "
            f"{found.cuts.megabytes} megabytes; name another folder"
        )
    return found


def _prepare(folder: str, plan: dict[str, Any]) -> None:
    """A folder in which an import can begin or go on."""
    known = under(folder, PARTS, "plan.json")
    if is_file(known):
        if json.loads(read_bytes(known)) != plan:
            raise PathError(
                f"{folder} holds an unfinished import of another manifest, or with other sizes of "
                "shards; remove it or name another folder"
            )
    elif is_used(folder, besides=PARTS):  # which is made before the plan is in it
        raise PathError(f"{folder} is not empty and no import; name another folder")
    else:
        make_folder(under(folder, PARTS))
        write_whole(known, json.dumps(plan).encode())


def _tasks(folder: str, corpus: Corpus, cuts: Cuts) -> Iterator[ShardTask]:
    first, number, size, sizes = 0, 0, 0, corpus.sizes()
    for place, own in enumerate(sizes):
        count = place - first
        if count and (count == cuts.rows or size + own > cuts.megabytes * 2**20):
            yield ShardTask(folder, number, first, count, corpus.part(first, count))
            first, number, size = place, number + 1, 0
        size += own
    count = len(sizes) - first
    yield ShardTask(folder, number, first, count, corpus.part(first, count))


def _finish(folder: str, source: str, cuts: Cuts, tasks: Sequence[ShardTask]) -> Imported:
    """Join the parts of the index, and say what there is."""
    joined, shards = hashlib.sha256(), []
    seen: dict[str, str] = {}
    copies: list[tuple[str, str]] = []
    with replacing(under(folder, INDEX), under(folder, PARTS)) as index:
        for task in tasks:
            shard, part = _part(task)
            shards.append(shard)
            index.write(part)
            joined.update(part)
            for line in part.splitlines():
                row = json.loads(line)
                first = seen.setdefault(_content(row), row["id"])
                if first != row["id"]:
                    copies.append((row["id"], first))
    if copies:
        told = "".join(json.dumps({"id": a, "same_as": b}) + "\n" for a, b in copies)
        write_whole(under(folder, "duplicates.jsonl"), told.encode())
    rows = sum(task.rows for task in tasks)
    done = Imported(rows, source, joined.hexdigest(), len(copies), tuple(shards), cuts)
    write_whole(under(folder, SUMMARY), (json.dumps(asdict(done), indent=1) + "\n").encode())
    remove_tree(under(folder, PARTS))
    return done


def _content(row: dict[str, Any]) -> str:
    """What two rows share exactly when their media and texts are the same."""
    told = {key: row[key] for key in TEXTS if row.get(key) is not None}
    if (text := row.get("text")) is not None:
        told[f"text_{row.get('lang') or language_of(text)}"] = text
    told |= {key: row[key]["sha256"] for key in MEDIA if row.get(key) is not None}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
