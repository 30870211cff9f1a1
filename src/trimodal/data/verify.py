"""Whether the shards of an import hold what was written.

for problem in verify("shards/train"): print(problem)
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from trimodal.data.manifest import INDEX
from trimodal.data.row import MEDIA, Folder, Row, parse
from trimodal.data.shards import Imported, Shard, read_summary
from trimodal.errors import DataError, StorageError
from trimodal.storage import ShardFile, beside, names_in, open_binary, read_bytes, under

BLOCK = 2**20


def verify(folder: str | Path, progress: Callable[[int], object] = lambda _: None) -> Iterator[str]:
    """Every file that is not what was imported, and where in it, and every other tar.

    Args:
        folder: of the import.
        progress: called with the number of rows of each shard that was read.

    Raises:
        DataError: there is no `index.json`.
        StorageError: it is damaged, or cannot be read now.
    """
    summary = read_summary(folder)
    index = f"{folder}/{INDEX}"
    yield from _strangers(folder, summary)
    try:
        content = read_bytes(index)
    except StorageError as error:
        yield str(error)
        return
    if hashlib.sha256(content).hexdigest() != summary.index:
        yield f"{index} is not what was imported"
        return
    sizes: dict[str, int | str] = {
        beside(index, shard.name): shard.size for shard in summary.shards
    }
    known, seen = Folder(index, sizes), dict[str, str]()
    rows = []
    for number, line in enumerate(content.splitlines(), start=1):
        row, problems, _ = parse(line, f"{index}:{number}", known, seen)
        rows.append(row)
        yield from problems
    counts = len(rows), summary.rows, sum(shard.rows for shard in summary.shards)
    if len(set(counts)) > 1:
        yield "{} has {} rows, and index.json counts {}, {} of them in shards".format(
            index, *counts
        )
    for shard, own in _by_shard(summary, rows):
        yield from _faults(index, shard, own)
        progress(shard.rows)


def _strangers(folder: str | Path, summary: Imported) -> Iterator[str]:
    """Tars that whoever reads all of a folder would read as well."""
    shards = {shard.name for shard in summary.shards}
    for name in names_in(folder):
        if name.endswith(".tar") and name not in shards:
            yield f"{under(folder, name)} is no shard of the import"


def _by_shard(
    summary: Imported, rows: list[Row | None]
) -> Iterator[tuple[Shard, list[Row | None]]]:
    first = 0
    for shard in summary.shards:
        yield shard, rows[first : first + shard.rows]
        first += shard.rows


def _faults(index: str, shard: Shard, rows: list[Row | None]) -> Iterator[str]:
    """What is wrong with one shard: the media that are hit, else that it is."""
    address = beside(index, shard.name)
    try:
        if _digest(address) == (shard.size, shard.sha256):
            return
    except StorageError as error:
        yield str(error)
        return
    found = False
    for row in rows:
        for key in MEDIA:
            if row is None or not isinstance(part := getattr(row, key), ShardFile):
                continue
            try:
                part.read()
            except (DataError, StorageError) as error:
                found = True
                yield f"{error}: {key} of {row.id!r}"
    if not found:
        yield f"{address} is not what was imported, though all media in it are"


def _digest(address: str) -> tuple[int, str]:
    total, size = hashlib.sha256(), 0
    with open_binary(address) as file:
        try:
            while block := file.read(BLOCK):
                total.update(block)
                size += len(block)
        except OSError as error:
            raise StorageError(f"{address} cannot be read: {error.strerror}") from error
    return size, total.hexdigest()
