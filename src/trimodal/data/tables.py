"""Datasets of Hugging Face's `datasets` as they lie on disk: saved, Parquet or Arrow.

    table = Table("corpus/train", {"speech": "audio", "text": "sentence"})
    import_corpus(table, "shards/train")

Media stay encoded: nothing is decoded, and nothing is asked of a hub.
"""

import functools
import hashlib
import importlib.util
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimodal.data.confines import confined
from trimodal.data.row import KNOWN, MEDIA, check_row, file_fault, language_of
from trimodal.data.shard import Entry
from trimodal.errors import ConfigError, DataError, TrimodalError
from trimodal.storage import Source, is_remote, size_of

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

SAVED, SPLITS = "state.json", "dataset_dict.json"
"""What tells a dataset, and a dictionary of them, that `save_to_disk` wrote."""
BATCH = 64
"""Rows whose media are in memory at once."""
OTHER_NAMES = {"speech": "audio"}
"""What a column may be called besides its key in a manifest."""
UNLABELLED = -1
"""What a `ClassLabel` holds where there is no label."""
NAMES = ("id", "label", "group", "speaker")
"""Keys that are strings even where a column has numbers."""


def is_table(path: str | Path) -> bool:
    """Whether this is a dataset, and no manifest or folder of shards."""
    if is_remote(path):
        return False
    path = Path(path)
    if path.is_file():
        return path.suffix in (".parquet", ".arrow")
    saved = any((path / name).is_file() for name in (SAVED, SPLITS))
    return saved or bool(_parquet_files(path))


@dataclass(frozen=True)
class Table:
    """A dataset whose columns are keys of a manifest.

    Columns are found by the keys' names, and speech as `audio` too; `columns` names those that
    have other names. Pictures and speech are `Image` and `Audio` features, bytes, or paths. What
    is left is kept as metadata, if JSON can hold it.

    Raises:
        ConfigError: `datasets` is not installed, a column is not there or holds no such thing.
        DataError: the dataset cannot be read.
    """

    path: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column by key."""

    def __post_init__(self) -> None:
        for key in self.columns:
            if key not in KNOWN:
                raise ConfigError(f"{key!r} is no key of a manifest: {', '.join(sorted(KNOWN))}")
        _opened(self)

    @property
    def digest(self) -> str:
        """SHA-256 of the files and of what their columns are taken for."""
        total = hashlib.sha256(json.dumps(dict(self.columns), sort_keys=True).encode())
        for path in _opened(self).files:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()

    @property
    def count(self) -> int:
        """Rows."""
        return _opened(self).count

    def sizes(self) -> list[int]:
        """Bytes of the media of each row.

        Raises:
            DataError: `PATH:ROW: cause`, a row cannot be used.
        """
        opened, sizes, seen = _opened(self), [], dict[str, str]()
        for tree, files in opened.entries(0, opened.count):
            where = f"{self.path}:{len(sizes) + 1}"
            problems = check_row({**tree, **files}, where, seen)
            problems += [f"{where}: {key} {cause}" for key, cause in _faults(files)]
            if problems:
                raise DataError(problems[0])
            sizes.append(sum(_size(content) for content in files.values()))
        return sizes

    @property
    def left_out(self) -> list[str]:
        """Columns that are not imported, for JSON cannot hold them."""
        return _opened(self).left_out

    def part(self, first: int, count: int) -> "TablePart":
        """Rows from `first` on."""
        return TablePart(self.path, tuple(sorted(self.columns.items())), first, count)


@dataclass(frozen=True)
class TablePart:
    """Rows of a table, read as they are iterated."""

    path: str
    columns: tuple[tuple[str, str], ...]
    first: int
    count: int

    def __iter__(self) -> Iterator[Entry]:
        return _open(self.path, self.columns).entries(self.first, self.count)


def _faults(files: Mapping[str, Source | bytes]) -> Iterator[tuple[str, str]]:
    """The media that cannot be used, short of reading them, and why."""
    for key, content in files.items():
        if isinstance(content, bytes):
            if not content:
                yield key, "has no bytes"
        elif (cause := file_fault(Path(str(content)))) is not None:
            yield key, f"{str(content)!r} {cause}"


def _size(content: Source | bytes) -> int:
    return len(content) if isinstance(content, bytes) else size_of(str(content))


@contextmanager
def _reading(deed: str) -> Iterator[None]:
    """One sentence for a file that is damaged, of which the libraries raise nearly anything."""
    try:
        yield
    except TrimodalError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{deed}: {cause}") from error


def _opened(table: Table) -> "_Opened":
    return _open(table.path, tuple(sorted(table.columns.items())))


@functools.lru_cache(maxsize=4)
def _open(path: str, columns: tuple[tuple[str, str], ...]) -> "_Opened":
    if importlib.util.find_spec("datasets") is None:
        raise ConfigError(
            "a dataset needs datasets, which is not installed: pip install 'trimodal[datasets]'"
        )
    place = Path(path)
    if (place / SPLITS).is_file():
        splits = sorted(p.name for p in place.iterdir() if (p / SAVED).is_file())
        raise ConfigError(f"{path} holds the splits {', '.join(splits)}; name one of its folders")
    with _reading(f"{path} is no dataset that can be read"):
        if place.suffix == ".parquet" or (not (place / SAVED).is_file() and place.is_dir()):
            return _Opened(place, _Parquet(_parquet_files(place)), dict(columns))
        return _Opened(place, _Arrow(place), dict(columns))


def _parquet_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.glob("*.parquet"))


class _Arrow:
    """What `save_to_disk` wrote, or one file of it; mapped, not read."""

    def __init__(self, path: Path) -> None:
        from datasets import Dataset, load_from_disk

        found = Dataset.from_file(str(path)) if path.is_file() else load_from_disk(str(path))
        if not isinstance(found, Dataset):
            raise ValueError("it is a dictionary of datasets")
        self.dataset: Dataset = found.with_format("arrow")
        self.files = [Path(file["filename"]).absolute() for file in found.cache_files]
        if path.is_dir():  # which says itself what its files are
            self.files = [confined(file, path, str(path / SAVED)) for file in self.files]
        self.features: Features = found.features
        self.count = len(found)

    def tables(self, columns: list[str], first: int, count: int) -> "Iterator[pa.Table]":
        chosen = self.dataset.select_columns(columns)
        for start in range(first, first + count, BATCH):
            yield chosen[start : min(start + BATCH, first + count)]


class _Parquet:
    """Files of equal columns."""

    def __init__(self, files: Sequence[Path]) -> None:
        from datasets import Features
        from pyarrow.parquet import ParquetFile

        self.files = list(files)
        self.parts: list[ParquetFile] = [ParquetFile(path) for path in files]
        schema = self.parts[0].schema_arrow
        for path, part in zip(files, self.parts, strict=True):
            if part.schema_arrow.names != schema.names:
                raise ValueError(f"{path.name} has other columns than {files[0].name}")
        self.features: Features = Features.from_arrow_schema(schema)
        self.count = sum(part.metadata.num_rows for part in self.parts)

    def tables(self, columns: list[str], first: int, count: int) -> "Iterator[pa.Table]":
        import pyarrow as pa

        place = 0
        for part in self.parts:
            for group in range(part.num_row_groups):
                rows = part.metadata.row_group(group).num_rows
                if place + rows > first and place < first + count:
                    at = place
                    for batch in part.iter_batches(BATCH, [group], columns):
                        start, stop = max(first - at, 0), min(first + count - at, len(batch))
                        if start < stop:
                            yield pa.table(batch.slice(start, stop - start))
                        at += len(batch)
                place += rows


class _Opened:
    """A dataset, and which of its columns are what."""

    def __init__(self, path: Path, rows: _Arrow | _Parquet, given: dict[str, str]) -> None:
        self.path, self.rows = path, rows
        self.files, self.count = rows.files, rows.count
        if not self.count:
            raise DataError(f"{path} has no rows")
        there = rows.features
        for key, column in given.items():
            if column not in there:
                raise ConfigError(f"{path} has no column {column!r} for {key}: {', '.join(there)}")
        taken = set(given.values())
        found = {key: given.get(key) or _found(key, there, taken) for key in sorted(KNOWN)}
        self.columns = {key: column for key, column in found.items() if column is not None}
        for key in MEDIA:
            if key in self.columns and not _is_medium(there[self.columns[key]]):
                raise ConfigError(
                    f"{path}: column {self.columns[key]!r} holds {there[self.columns[key]]}, no "
                    f"encoded {key}"
                )
        others = [name for name in there if name not in self.columns.values()]
        schema = there.arrow_schema
        self.metadata = [name for name in others if _is_json(schema.field(name).type)]
        self.left_out = [name for name in others if name not in self.metadata]

    def entries(self, first: int, count: int) -> Iterator[Entry]:
        place = first
        for rows in self._batches(first, count):
            for row in rows:
                yield self._entry(row, place)
                place += 1

    def _batches(self, first: int, count: int) -> Iterator[list[dict[str, Any]]]:
        columns = [*self.columns.values(), *self.metadata]
        tables, place = self.rows.tables(columns, first, count), first
        while True:
            with _reading(f"{self.path}:{place + 1}: cannot be read from this row on"):
                table = next(tables, None)
                rows = None if table is None else table.to_pylist()
            if rows is None:
                return
            yield rows
            place += len(rows)

    def _entry(self, row: dict[str, Any], place: int) -> Entry:
        tree: dict[str, Any] = {"id": f"{self.path.stem}-{place}"}
        files: dict[str, Source | bytes] = {}
        for key, column in self.columns.items():
            value = row[column]
            if value is None:
                continue
            if key in MEDIA:
                if (content := self._content(key, value, place)) is not None:
                    files[key] = content
            elif (told := self._told(key, column, value, place)) is not None:
                tree[key] = told
        if isinstance(texts := tree.get("text"), list):
            tree |= _captions(texts, tree.get("lang"))
        return {**tree, **{name: _finite(row[name]) for name in self.metadata}}, files

    def _content(self, key: str, value: Any, place: int) -> Source | bytes | None:
        if isinstance(value, dict):
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if value is None or isinstance(value, bytes):
            return value
        folder = self.path if self.path.is_dir() else self.path.parent
        return confined(str(value), folder, f"{self.path}:{place + 1}: {key}")

    def _told(self, key: str, column: str, value: Any, place: int) -> Any:
        """A label by its name, and numbers that are names as strings."""
        from datasets import ClassLabel

        kind = self.rows.features[column]
        if isinstance(kind, ClassLabel):
            if value == UNLABELLED:
                return None
            names = kind.names or []
            if not isinstance(value, int) or not 0 <= value < len(names):
                raise DataError(
                    f"{self.path}:{place + 1}: {key} {value!r} is none of the {len(names)} classes "
                    f"of column {column!r}"
                )
            return names[value]
        return str(value) if key in NAMES and isinstance(value, int) else value


def _found(key: str, there: "Features", taken: set[str]) -> str | None:
    names = (name for name in (key, OTHER_NAMES.get(key)) if name is not None)
    return next((name for name in names if name in there and name not in taken), None)


def _is_medium(feature: Any) -> bool:
    from datasets import Audio, Image

    if isinstance(feature, Audio | Image):
        return True
    return getattr(feature, "dtype", None) in ("string", "large_string", "binary", "large_binary")


def _is_json(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_json(kind.value_type)
    if types.is_struct(kind):
        return all(_is_json(kind.field(i).type) for i in range(kind.num_fields))
    simple = (types.is_boolean, types.is_integer, types.is_floating, types.is_null)
    strings = (types.is_string, types.is_large_string)
    return any(test(kind) for test in (*simple, *strings))


def _captions(texts: list[Any], lang: Any) -> dict[str, Any]:
    """The first of several texts is the row's own, the others are references."""
    if not texts:
        return {"text": None}
    first, *others = texts
    lang = lang if isinstance(lang, str) else language_of(str(first))
    return {"text": first, "references": {lang: others}} if others else {"text": first}


def _finite(value: Any) -> Any:
    """JSON has no number that is none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return value
