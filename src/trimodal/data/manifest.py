"""The manifest: a JSON line per sample, read strictly.

rows = read_manifest("corpus/train.jsonl")
"""

import hashlib
import io
import json
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trimodal.data.row import MEDIA, Folder, Row, parse
from trimodal.errors import DataError, StorageError
from trimodal.storage import (
    ShardFile,
    beside,
    is_missing,
    is_remote,
    open_binary,
    read_bytes,
    read_data,
)

LONGEST_LINE = 2**24
INDEX, SUMMARY = "index.jsonl", "index.json"
"""The manifest of a folder of shards and what it is checked by, see `trimodal.data.shards`."""


@dataclass(frozen=True)
class Manifest:
    """One manifest, read once."""

    rows: list[Row]
    trees: list[dict[str, Any]]
    """The rows as they are written; none unless they were asked for."""
    digest: str
    """SHA-256 of its bytes, in hexadecimal."""


def read_manifest(path: str | Path) -> list[Row]:
    """Read one manifest.

    Raises:
        DataError: `FILE:LINE: cause` of the first bad row, or the file is missing or has no row.
    """
    return read_manifests([path])


def read_manifests(paths: Iterable[str | Path]) -> list[Row]:
    """Read several manifests as one; an id occurs once in all of them together.

    Raises:
        DataError: as `read_manifest`.
    """
    return [row for rows in read_each(paths) for row in rows]


def read_each(paths: Iterable[str | Path], *, tolerant: bool = False) -> list[list[Row]]:
    """The rows of each manifest; an id occurs once in all of them together.

    Args:
        paths: of the manifests.
        tolerant: keep a row that cannot be used, with its fault; the places of others stay.

    Raises:
        DataError: as `read_manifest`.
    """
    seen: dict[str, str] = {}
    each = [read_whole(path, seen, tolerant=tolerant).rows for path in paths]
    if not each:
        raise DataError("no manifest is given")
    return each


def read_whole(
    path: str | Path,
    seen: dict[str, str] | None = None,
    *,
    tolerant: bool = False,
    trees: bool = False,
) -> Manifest:
    """A manifest with its digest, in one reading.

    Args:
        path: of the manifest.
        seen: ids that are taken and where; those of this manifest are added.
        tolerant: keep a row that cannot be used, with its fault.
        trees: keep the rows as they are written too, where none has a fault.

    Raises:
        DataError: as `read_manifest`.
    """
    rows: list[Row] = []
    kept: list[dict[str, Any]] = []
    total = hashlib.sha256()
    for row, problems, tree in _scanned(path, {} if seen is None else seen, total):
        if problems and not tolerant:
            raise DataError(problems[0])
        if row is None or problems:
            name = f"{path}:{len(rows)}" if row is None else row.id
            rows.append(Row(id=name, group=row and row.group, fault=problems[0]))
            continue
        rows.append(row)
        if trees and tree is not None:
            kept.append(tree)
    return Manifest(rows, kept, total.hexdigest())


def scan_manifest(
    path: str | Path, seen: dict[str, str] | None = None
) -> Iterator[tuple[Row | None, list[str]]]:
    """Every row that is not blank with its problems, each `FILE:LINE: cause`.

    A row with problems holds what could be understood of it, or is None if that is nothing.

    Args:
        path: the manifest; relative media paths start at its folder.
        seen: ids that are taken and where; the ids of this manifest are added.

    Raises:
        DataError: the file is missing, has no row or a line of more than 16 MiB.
        StorageError: it cannot be read now.
    """
    for row, problems, _ in _scanned(path, {} if seen is None else seen, hashlib.sha256()):
        yield row, problems


def _scanned(
    given: str | Path, seen: dict[str, str], total: "hashlib._Hash"
) -> Iterator[tuple[Row | None, list[str], dict[str, Any] | None]]:
    """As `scan_manifest`, with each row as it is written; all bytes are added to `total`."""
    path = manifest_of(given)
    folder = Folder(path, {})
    empty = True
    try:
        with _opened(given, path) as file:
            lines = iter(lambda: file.readline(LONGEST_LINE + 1), b"")
            for number, line in enumerate(lines, start=1):
                if len(line) > LONGEST_LINE:
                    raise DataError(f"{path}:{number}: the line is longer than 16 MiB")
                total.update(line)
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    empty = False
                    yield parse(line, f"{path}:{number}", folder, seen)
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and not is_missing(error):
            raise
        raise DataError(f"manifest {error}") from error
    except OSError as error:
        raise DataError(f"manifest {path} cannot be read: {error.strerror}") from error
    if empty:
        raise DataError(f"manifest {path} has no rows")


def _opened(given: str | Path, path: str) -> BinaryIO:
    """A manifest from its start; an index whole, for it has a hash.

    Raises:
        DataError: it is no file, or another one than was written; no JSON shows a changed letter.
        StorageError: it cannot be read, or the import was not finished.
    """
    if path != str(given):
        summary = beside(path, SUMMARY)
        try:
            known = json.loads(read_bytes(summary))["index"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise DataError(f"{summary} is damaged") from error
        content = read_bytes(path)
        if hashlib.sha256(content).hexdigest() != known:
            raise DataError(f"{path} is not what was imported")
        return io.BytesIO(content)
    # opening a pipe would wait for its writer
    if not is_remote(path) and not stat.S_ISREG(Path(path).stat().st_mode):
        raise DataError(f"manifest {path} cannot be read: it is not a regular file")
    return open_binary(path)


def manifest_of(path: str | Path) -> str:
    """The manifest itself, which of an imported folder is its index."""
    if is_remote(path):
        return str(path) if str(path).endswith(".jsonl") else f"{str(path).rstrip('/')}/{INDEX}"
    index = Path(path) / INDEX
    return str(index if index.is_file() else path)


def manifest_digest(path: str | Path) -> str:
    """SHA-256 of a manifest, in hexadecimal.

    Raises:
        DataError: there is none.
        StorageError: it cannot be read now.
    """
    try:
        return hashlib.sha256(read_data(manifest_of(path))).hexdigest()
    except DataError as error:
        raise DataError(f"manifest {error}") from error


def moved(row: Row, tree: Mapping[str, Any], folder: str | Path) -> dict[str, Any]:
    """A row as it is written in a manifest of another folder.

    Args:
        row: with its media.
        tree: as it is written so far.
        folder: of the new manifest.

    Raises:
        DataError: a medium lies where no path leads.
    """
    named = dict(tree)
    for key in MEDIA:
        source = getattr(row, key)
        if isinstance(source, ShardFile):
            named[key] = {**tree[key], "shard": _path_from(source.shard, folder)}
        elif source is not None:
            named[key] = _path_from(str(source), folder)
    return named


def _path_from(address: str, folder: str | Path) -> str:
    if not is_remote(address) and not is_remote(folder):
        return os.path.relpath(address, folder)
    (system, _, path), (other, _, start) = address.partition("://"), str(folder).partition("://")
    if system != other or path.split("/")[0] != start.split("/")[0]:
        raise DataError(f"{address} has no path from {folder}; import it into a folder there")
    return posixpath.relpath(path, start)
