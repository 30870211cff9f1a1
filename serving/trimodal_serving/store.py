"""Indexes of vectors in a folder, kept by LanceDB; everything here is asynchronous.

indexes = await Indexes.open(Path("indexes"))
index = await indexes.create("cats", Description({"year": "integer"}, 64, signature))
found = await index.search(vector, most=10, condition=parse_filter({"year": 2020}, index.fields))
"""

import asyncio
import base64
import functools
import json
import logging
import operator
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimodal.errors import ConfigError, StorageError
from trimodal_serving.admission import Admission
from trimodal_serving.caller import Usage, current
from trimodal_serving.errors import ServingError
from trimodal_serving.filters import (
    BUILT_IN,
    Among,
    Compared,
    Condition,
    Exists,
    Joined,
    Not,
    Scalar,
)
from trimodal_serving.tables import erase, sweep, table_names

if TYPE_CHECKING:
    import lancedb
    import pyarrow
    from lancedb.expr import Expr

MOST_INDEXES = 256
"""Of a tenant."""
MOST_ITEMS = 1_000_000
"""Of an index, since a search compares all of them."""
ROWS_A_TOKEN = 1024
"""Items that are looked at for what a token is charged; one that is written is a token too."""
MOST_WORK = 16_384
"""Tokens of all that is done with indexes at once."""
COMPACT_EVERY = 64
"""Writes after which the files of an index are put together."""
OLD = timedelta(minutes=10)
"""Age at which what was replaced is deleted; no search takes as long."""
ALIKE = 0.999
"""Cosine of the signatures of what is taken for one model; another device rounds otherwise."""
KEY = b"trimodal"
logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_KINDS = {"string": "string", "integer": "int64", "number": "float64", "boolean": "bool_"}


@dataclass(frozen=True)
class Description:
    """What an index is of."""

    fields: Mapping[str, str]
    """What its items may say of themselves and be found by, with its type."""
    dimensions: int
    signature: np.ndarray
    """Of the model that its vectors are from, see `Engine.signature`."""


@dataclass(frozen=True)
class Item:
    """What an index holds."""

    id: str
    vector: np.ndarray
    modality: str
    metadata: Mapping[str, Scalar]
    payload: Any = None
    """Any JSON, which is given back as it is."""


@dataclass(frozen=True)
class Found:
    """An item and how near it is."""

    item: Item
    score: float
    """Cosine with what was looked for."""


def check_name(name: Any) -> str:
    """A name that may become that of a folder: small letters, digits, _ and -.

    Raises:
        ServingError: any other.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ServingError(
            400,
            "invalid_name",
            "the name of an index is 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or a "
            "digit",
            param="name",
        )
    return name


class Indexes:
    """All indexes of a folder."""

    def __init__(
        self, folder: Path, connection: "lancedb.AsyncConnection", admission: Admission
    ) -> None:
        self._folder = folder
        self._connection = connection
        self._admission = admission
        self._open: dict[str, Index] = {}
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, folder: Path, admission: Admission | None = None) -> "Indexes":
        """Open a folder, which is made if it is not there.

        Args:
            folder: of the indexes.
            admission: bounds the work on them; None bounds it to `MOST_WORK`.

        Raises:
            ConfigError: LanceDB is not installed.
            StorageError: the folder cannot be used.
        """
        try:
            # slow to import
            lancedb = await asyncio.to_thread(__import__, "lancedb")
        except ImportError as error:
            raise ConfigError(
                f"--indexes needs {error.name}: pip install 'trimodal[search]'"
            ) from error
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            await asyncio.to_thread(sweep, folder)
            connection = await lancedb.connect_async(folder)
            return cls(folder, connection, admission or Admission(MOST_WORK))
        except (OSError, RuntimeError, ValueError) as error:
            raise StorageError(f"--indexes {folder}: cannot be used as a folder") from error

    async def names(self) -> list[str]:
        """Of all indexes, in order."""
        names = await asyncio.to_thread(table_names, self._folder)
        return [name for name in names if _NAME.fullmatch(name)]

    async def create(self, name: str, description: Description) -> "Index":
        """Make an empty index.

        Raises:
            ServingError: there is one of this name, or there are too many; or the disk is full.
        """
        check_name(name)
        async with self._lock:
            names = await self.names()
            if name in names:
                raise ServingError(409, "index_exists", "there is an index of this name")
            if len(names) >= MOST_INDEXES:
                raise ServingError(
                    409, "too_many_indexes", f"there are {MOST_INDEXES} indexes, which is the limit"
                )
            try:
                async with _writing():
                    await self._erase(name)  # what there is of one that was never made as a whole
                    table = await self._connection.create_table(name, schema=_schema(description))
            except ServingError:
                with suppress(OSError):
                    await self._erase(name)
                raise
            self._open[name] = Index(table, description, self._admission)
        return self._open[name]

    async def get(self, name: str) -> "Index":
        """An index.

        Raises:
            ServingError: there is none of this name.
        """
        check_name(name)
        async with self._lock:
            if name not in self._open:
                if name not in await self.names():
                    raise _absent()
                try:
                    table = await self._connection.open_table(name)
                except ValueError:
                    raise _foreign() from None
                description = _description(await table.schema())
                self._open[name] = Index(table, description, self._admission)
        return self._open[name]

    async def drop(self, name: str) -> None:
        """Delete an index with all its items.

        Raises:
            ServingError: there is none of this name, or the disk does not let it go.
        """
        index = await self.get(name)
        async with self._lock, index.lock:
            self._open.pop(name, None)
            index.dropped = True
            async with _writing():
                await self._erase(name)

    async def _erase(self, name: str) -> None:
        await asyncio.to_thread(erase, self._folder, name)


class Index:
    """One index; searches are exact.

    What looks at all items holds room for it, and is charged to the caller of the running task:
    429 if there is as much work on indexes as is taken in.
    """

    def __init__(
        self, table: "lancedb.AsyncTable", description: Description, admission: Admission
    ) -> None:
        self._table = table
        self._description = description
        self._admission = admission
        self.lock = asyncio.Lock()
        """Held by whoever changes it."""
        self.dropped = False
        self._writes = 0

    @property
    def fields(self) -> Mapping[str, str]:
        """What items may say of themselves, with its type."""
        return self._description.fields

    @property
    def dimensions(self) -> int:
        """Of the vectors."""
        return self._description.dimensions

    def check_model(self, signature: np.ndarray) -> None:
        """Return if the vectors in it are from the model with this signature.

        Raises:
            ServingError: they are from another, with which they cannot be compared.
        """
        ours = self._description.signature
        if ours.shape != signature.shape or float(ours @ signature) < ALIKE:
            raise ServingError(
                409,
                "index_of_another_model",
                "the index holds vectors of another model, which cannot be compared with those of "
                "this one",
            )

    async def count(self) -> int:
        """How many items it holds."""
        return await self._table.count_rows()

    @asynccontextmanager
    async def _work(self, written: int = 0) -> AsyncIterator[None]:
        """Room to look at all items, and to write some."""
        cost = written + 1 + await self.count() // ROWS_A_TOKEN
        with self._admission.admit(cost):
            yield
        current().usage.add(Usage(cost))

    @asynccontextmanager
    async def _change(self, written: int = 0) -> AsyncIterator[None]:
        """The same for one change at a time, unless the index was deleted meanwhile."""
        async with self._work(written), self.lock:
            if self.dropped:
                raise _absent()
            yield

    async def upsert(self, items: Sequence[Item]) -> None:
        """Add items, in the place of those that have their ids.

        Raises:
            ServingError: there would be too many, and none is added; or no room for the work, or on
                the disk; or the index was deleted.
        """
        data = await asyncio.to_thread(_rows, items, self._description)
        async with self._change(len(items)):
            await self._check_room(items)
            merge = self._table.merge_insert("id").when_matched_update_all()
            async with _writing():
                await merge.when_not_matched_insert_all().execute(data)
            await self._written()

    async def _check_room(self, items: Sequence[Item]) -> None:
        room = MOST_ITEMS - await self.count()
        if len(items) <= room:
            return
        same = _expression(Among("id", tuple(item.id for item in items)))
        known = await self._table.query().where(same).select(["id"]).to_list()
        if len(items) - len(known) > room:
            message = f"an index holds {MOST_ITEMS} items at most; delete some, or make another"
            raise ServingError(409, "too_many_items", message)

    async def delete(self, condition: Condition) -> int:
        """Delete what a condition is true of; returns how many items that were.

        Raises:
            ServingError: no room for the work, or on the disk; or the index was deleted.
        """
        async with self._change():
            before = await self.count()
            async with _writing():
                await self._table.delete(_expression(condition))
            number = before - await self.count()
            await self._written()
        return number

    async def _written(self) -> None:
        self._writes += 1
        if self._writes % COMPACT_EVERY == 0:
            try:
                await self._table.optimize(cleanup_older_than=OLD)
            except (OSError, RuntimeError) as error:  # what was written is there all the same
                logger.error("an index cannot be compacted", exc_info=error)

    async def item(self, name: str) -> Item | None:
        """The item of an id."""
        query = self._table.query().where(_expression(Compared("id", "eq", name)))
        async with self._work():
            rows = await query.limit(1).to_list()
        return self._item(rows[0]) if rows else None

    async def search(
        self, vector: np.ndarray, most: int, condition: Condition | None = None
    ) -> list[Found]:
        """The items nearest to a vector, nearest first.

        Args:
            vector: (dimensions,) float32, unit norm.
            most: items that are wanted.
            condition: that they meet; it is asked before any is left out for being far.
        """
        query = self._table.query().nearest_to(vector).distance_type("dot")
        if condition is not None:
            query = query.where(_expression(condition))
        async with self._work():
            rows = await query.limit(most).to_list()
        found = [Found(item, float(item.vector @ vector)) for item in map(self._item, rows)]
        return sorted(found, key=lambda one: (-one.score, one.item.id))

    def _item(self, row: Mapping[str, Any]) -> Item:
        metadata = {name: row[f"f_{name}"] for name in self.fields if row[f"h_{name}"]}
        vector = np.asarray(row["vector"], np.float32)
        payload = None if row["payload"] is None else json.loads(row["payload"])
        return Item(row["id"], vector, row["modality"], metadata, payload)


@asynccontextmanager
async def _writing() -> AsyncIterator[None]:
    """Changes of an index, each of which is made as a whole or not at all."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        logger.error("an index cannot be written", exc_info=error)
        message = "the folder of the indexes cannot be written at the moment"
        raise ServingError(503, "indexes_not_writable", message, retry_after=10) from None


def _schema(description: Description) -> "pyarrow.Schema":
    """Two columns a field: its value, and whether there is one, since SQL has a third truth."""
    import pyarrow as pa

    tree = {
        "fields": dict(description.fields),
        "dimensions": description.dimensions,
        "signature": base64.b64encode(description.signature.astype("<f4").tobytes()).decode(),
    }
    columns: list[tuple[str, Any]] = [
        ("id", pa.string()),
        ("vector", pa.list_(pa.float32(), description.dimensions)),
        ("modality", pa.string()),
        ("payload", pa.string()),
    ]
    for name, kind in description.fields.items():
        columns += [(f"f_{name}", getattr(pa, _KINDS[kind])()), (f"h_{name}", pa.bool_())]
    return pa.schema(columns, metadata={KEY: json.dumps(tree).encode()})


def _description(schema: "pyarrow.Schema") -> Description:
    try:
        tree = json.loads((schema.metadata or {})[KEY])
        signature = np.frombuffer(base64.b64decode(tree["signature"]), "<f4")
        return Description(tree["fields"], tree["dimensions"], signature)
    except (KeyError, TypeError, ValueError):
        raise _foreign() from None


def _foreign() -> ServingError:
    return ServingError(409, "foreign_index", "the folder of this name is no index of this server")


def _absent() -> ServingError:
    return ServingError(404, "index_not_found", "there is no index of this name")


def _rows(items: Sequence[Item], description: Description) -> "pyarrow.Table":
    import pyarrow as pa

    schema = _schema(description)
    vectors = np.stack([item.vector for item in items]).astype(np.float32)
    columns: dict[str, Any] = {
        "id": [item.id for item in items],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        "modality": [item.modality for item in items],
        "payload": [None if item.payload is None else json.dumps(item.payload) for item in items],
    }
    for name in description.fields:
        values = [item.metadata.get(name) for item in items]
        columns[f"f_{name}"] = values
        columns[f"h_{name}"] = [value is not None for value in values]
    return pa.table(columns, schema=schema)


def _expression(condition: Condition) -> "Expr":
    """A condition in LanceDB's own trees; no text of a user becomes a language."""
    from lancedb.expr import col, lit

    if isinstance(condition, Joined):
        join = operator.and_ if condition.how == "and" else operator.or_
        return functools.reduce(join, map(_expression, condition.parts))
    if isinstance(condition, Not):
        return ~_expression(condition.inner)
    there = _there(condition.field)
    if isinstance(condition, Exists):
        return there if there is not None else col("id") == col("id")
    column = col(condition.field if condition.field in BUILT_IN else f"f_{condition.field}")
    if isinstance(condition, Among):
        found = column.isin([lit(value) for value in condition.values])
    else:
        found = _compared(column, condition)
    return found if there is None else there & found


def _there(field: str) -> "Expr | None":
    """Whether an item has a field; None for what all have."""
    from lancedb.expr import col, lit

    return None if field in BUILT_IN else col(f"h_{field}") == lit(True)


def _compared(column: "Expr", condition: Compared) -> "Expr":
    from lancedb.expr import lit

    names = {"gte": "ge", "lte": "le"}
    compare = getattr(operator, names.get(condition.operator, condition.operator))
    return compare(column, lit(condition.value))
