import asyncio
import itertools
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimodal.errors import StorageError
from trimodal_serving import store
from trimodal_serving.caller import Caller, acting
from trimodal_serving.errors import ServingError
from trimodal_serving.filters import parse_filter
from trimodal_serving.store import Description, Index, Indexes, Item, check_name

FIELDS = {"year": "integer", "name": "string", "size": "number", "good": "boolean"}
SIGNATURE = np.eye(4, dtype=np.float32)[0]
VECTORS = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
NAMES = ("plain", "it's", 'a"b', "back\\slash", "红色", "", "f_name")


def item(i: int) -> Item:
    """Items of which some lack some fields."""
    metadata: dict[str, Any] = {
        "year": 2000 + i % 7 if i % 3 else None,
        "name": NAMES[i % len(NAMES)] if i % 5 else None,
        "size": i / 8 - 1,
        "good": i % 2 == 0 if i % 4 else None,
    }
    known = {key: value for key, value in metadata.items() if value is not None}
    payload = {"n": [i, None]} if i % 2 else None
    return Item(f"item-{i}", VECTORS[i], ("image", "text")[i % 2], known, payload)


def run(folder: Path, work: Callable[[Index], Awaitable[Any]]) -> Any:
    """Something done with an index of all items in a new folder."""

    async def all_of_it() -> Any:
        indexes = await Indexes.open(folder)
        index = await indexes.create("things", Description(FIELDS, 8, SIGNATURE))
        await index.upsert([item(i) for i in range(40)])
        return await work(index)

    return asyncio.run(all_of_it())


def nearest(query: np.ndarray, known: list[Item], most: int) -> list[str]:
    known = sorted(known, key=lambda one: (-float(one.vector @ query), one.id))
    return [one.id for one in known[:most]]


def test_the_nearest_are_found_in_their_order(tmp_path: Path) -> None:
    async def work(index: Index) -> None:
        for query in VECTORS[:5]:
            found = await index.search(query, 7)
            assert [one.item.id for one in found] == nearest(query, [*map(item, range(40))], 7)
            assert [one.score for one in found] == sorted((o.score for o in found), reverse=True)
            assert found[0].score == pytest.approx(1, abs=1e-6)

    run(tmp_path, work)


def test_items_come_back_as_they_were(tmp_path: Path) -> None:
    async def work(index: Index) -> None:
        for i in range(40):
            found, put = await index.item(f"item-{i}"), item(i)
            assert found is not None
            assert (found.id, found.modality, found.metadata) == (
                put.id,
                put.modality,
                put.metadata,
            )
            assert found.payload == put.payload
            assert (found.vector == put.vector).all()
        assert await index.item("item-40") is None
        assert await index.item("' OR '1'='1") is None

    run(tmp_path, work)


def holds(tree: dict[str, Any], one: Item) -> bool:
    """The meaning of a filter, written down a second time."""
    known = {"id": one.id, "modality": one.modality, **one.metadata}
    results = []
    for key, value in tree.items():
        if key in ("and", "or"):
            results.append((all if key == "and" else any)(holds(part, one) for part in value))
        elif key == "not":
            results.append(not holds(value, one))
        else:
            how = value if isinstance(value, dict) else {"eq": value}
            results += [true(name, known.get(key), operand) for name, operand in how.items()]
    return all(results)


def true(name: str, value: Any, operand: Any) -> bool:
    if name == "exists":
        return (value is not None) == operand
    if value is None:
        return False
    return {
        "eq": lambda: value == operand,
        "ne": lambda: value != operand,
        "gt": lambda: value > operand,
        "gte": lambda: value >= operand,
        "lt": lambda: value < operand,
        "lte": lambda: value <= operand,
        "in": lambda: value in operand,
    }[name]()


LEAVES: list[dict[str, Any]] = [
    {"year": 2003},
    {"year": {"ne": 2003}},
    {"year": {"gte": 2002, "lt": 2005}},
    {"year": {"exists": False}},
    {"good": True},
    {"good": {"exists": True}},
    {"size": {"gt": 0.5}},
    {"size": {"lte": -0.25}},
    {"modality": "image"},
    {"id": {"in": ["item-3", "item-4", "' OR 1=1 --"]}},
    {"name": {"in": ["it's", "back\\slash", "红色"]}},
    {"name": {"gt": "b"}},
    *({"name": name} for name in NAMES),
    {"name": "' OR 1=1 --"},
    {"name": "x' OR 'a'='a"},
]
FILTERS = [
    *LEAVES,
    *({"not": leaf} for leaf in LEAVES),
    *({"or": list(pair)} for pair in itertools.combinations(LEAVES[:10], 2)),
    *({"and": [LEAVES[i], {"not": {"or": LEAVES[i + 3 : i + 5]}}]} for i in range(10)),
]


def test_filters_mean_what_they_say(tmp_path: Path) -> None:
    async def work(index: Index) -> None:
        for tree in FILTERS:
            condition = parse_filter(tree, index.fields)
            found = await index.search(VECTORS[0], 40, condition)
            expected = [one for one in map(item, range(40)) if holds(tree, one)]
            assert [one.item.id for one in found] == nearest(VECTORS[0], expected, 40), tree

    run(tmp_path, work)


def test_a_filter_is_asked_before_the_nearest_are_chosen(tmp_path: Path) -> None:
    async def work(index: Index) -> None:
        far = nearest(-VECTORS[0], [*map(item, range(40))], 1)
        found = await index.search(VECTORS[0], 1, parse_filter({"id": far[0]}, index.fields))
        assert [one.item.id for one in found] == far

    run(tmp_path, work)


def test_an_item_takes_the_place_of_the_one_with_its_id(tmp_path: Path) -> None:
    async def work(index: Index) -> None:
        await index.upsert([Item("item-1", VECTORS[2], "fused", {"year": 1}), item(2)])
        assert await index.count() == 40
        found = await index.item("item-1")
        assert found is not None
        assert (found.modality, found.metadata, found.payload) == ("fused", {"year": 1}, None)

    run(tmp_path, work)


def test_deleting_says_how_many_there_were(tmp_path: Path) -> None:
    async def work(index: Index) -> None:
        assert await index.delete(parse_filter({"modality": "image"}, index.fields)) == 20
        assert await index.delete(parse_filter({"modality": "image"}, index.fields)) == 0
        assert await index.count() == 20

    run(tmp_path, work)


def test_an_index_outlives_who_made_it(tmp_path: Path) -> None:
    async def before(index: Index) -> list[str]:
        return [one.item.id for one in await index.search(VECTORS[3], 5)]

    expected = run(tmp_path, before)

    async def after() -> None:
        indexes = await Indexes.open(tmp_path)
        assert await indexes.names() == ["things"]
        index = await indexes.get("things")
        assert (index.fields, index.dimensions, await index.count()) == (FIELDS, 8, 40)
        assert [one.item.id for one in await index.search(VECTORS[3], 5)] == expected
        index.check_model(SIGNATURE)
        for other in (np.eye(4, dtype=np.float32)[1], np.ones(5, np.float32)):
            with pytest.raises(ServingError) as caught:
                index.check_model(other)
            assert (caught.value.status, caught.value.code) == (409, "index_of_another_model")

    asyncio.run(after())


def test_many_writes_leave_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "COMPACT_EVERY", 8)

    async def work(index: Index) -> None:
        for i in range(20):
            await index.upsert([item(i)])

    run(tmp_path, work)
    assert len(list((tmp_path / "things.lance" / "data").iterdir())) < 45


def test_writes_at_once_are_all_kept(tmp_path: Path) -> None:
    async def work(index: Index) -> None:
        rows = [Item(f"more-{i}", VECTORS[i], "text", {}) for i in range(16)]
        await asyncio.gather(*(index.upsert([row]) for row in rows))
        assert await index.count() == 56

    run(tmp_path, work)


@contextmanager
def full_disk() -> Iterator[None]:
    """Nothing can be written to files, as if there were no room for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_refuses_changes_and_leaves_what_there_was(tmp_path: Path) -> None:
    async def refused(work: Awaitable[Any]) -> None:
        with pytest.raises(ServingError) as caught:
            await work
        error = caught.value
        assert (error.status, error.code, error.retry_after) == (503, "indexes_not_writable", 10)

    async def main() -> None:
        indexes = await Indexes.open(tmp_path)
        description = Description(FIELDS, 8, SIGNATURE)
        with full_disk():
            await refused(indexes.create("things", description))
        assert await indexes.names() == []
        index = await indexes.create("things", description)
        await index.upsert([item(0)])
        with full_disk():
            await refused(index.upsert([item(1)]))
            await refused(index.delete(parse_filter({"id": "item-0"}, {})))
            assert [found.item.id for found in await index.search(VECTORS[0], 9)] == ["item-0"]
        await index.upsert([item(1)])
        assert await index.count() == 2

    asyncio.run(main())


def test_an_index_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_ITEMS", 42)

    async def work(index: Index) -> None:
        more = [Item(f"more-{i}", VECTORS[i], "text", {}) for i in range(3)]
        with pytest.raises(ServingError, match="holds 42 items at most") as caught:
            await index.upsert(more)
        assert (caught.value.status, caught.value.code) == (409, "too_many_items")
        assert await index.count() == 40
        await index.upsert(more[:2])
        await index.upsert([item(0), item(1), *more[:2]])  # in the place of those that are there
        with pytest.raises(ServingError, match="holds 42 items at most"):
            await index.upsert([item(0), more[2]])
        assert await index.count() == 42

    run(tmp_path, work)


def test_work_is_charged_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROWS_A_TOKEN", 10)
    monkeypatch.setattr(store, "MOST_WORK", 100)

    async def work(index: Index) -> None:
        red = parse_filter({"id": "red"}, index.fields)
        asked: list[tuple[Callable[[], Awaitable[Any]], int]] = [
            (lambda: index.search(VECTORS[0], 1), 5),
            (lambda: index.upsert([item(0), item(1)]), 7),
            (lambda: index.item("red"), 5),
            (lambda: index.delete(red), 5),
        ]
        for ask, cost in asked:
            with acting(Caller("alice")) as caller:
                await ask()
            assert (caller.cost, caller.usage.tokens) == (cost, cost)
        with acting(Caller("alice")) as caller, index._admission.admit(1000):
            for ask, _ in asked:
                with pytest.raises(ServingError) as caught:
                    await ask()
                assert (caught.value.status, caught.value.code) == (429, "queue_full")
            assert caller.usage.tokens == 0
        assert index._admission.idle

    run(tmp_path, work)


def test_indexes_come_and_go(tmp_path: Path) -> None:
    async def work() -> None:
        indexes = await Indexes.open(tmp_path / "made" / "here")
        description = Description({}, 8, SIGNATURE)
        await asyncio.gather(*(indexes.create(name, description) for name in ("b", "a")))
        assert await indexes.names() == ["a", "b"]
        with pytest.raises(ServingError, match="an index of this name"):
            await indexes.create("a", description)
        await indexes.drop("a")
        for again in (indexes.drop, indexes.get):
            with pytest.raises(ServingError, match="no index of this name"):
                await again("a")
        assert await indexes.names() == ["b"]

    asyncio.run(work())
    assert not (tmp_path / "made" / "here" / "a.lance").exists()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a\\b", "/etc", "A", "a.lance", "a b", "a\0", "-a", "_a", "é",
     "a" * 64, "%2e%2e", "~", "a\n", None, 7, ["a"]],
)  # fmt: skip
def test_names_are_never_paths(name: Any, tmp_path: Path) -> None:
    with pytest.raises(ServingError) as caught:
        check_name(name)
    assert (caught.value.status, caught.value.code) == (400, "invalid_name")

    async def work() -> None:
        indexes = await Indexes.open(tmp_path / "inside")
        for function in (indexes.get, indexes.drop):
            with pytest.raises(ServingError):
                await function(name)
        with pytest.raises(ServingError):
            await indexes.create(name, Description({}, 8, SIGNATURE))

    asyncio.run(work())
    assert [path.name for path in tmp_path.rglob("*")] == ["inside"]


def test_names() -> None:
    for name in ("a", "0", "my-index_2", "a" * 63):
        assert check_name(name) == name


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be used as a folder"):
        asyncio.run(Indexes.open(tmp_path / "file"))


def test_a_table_of_another_program_is_left_alone(tmp_path: Path) -> None:
    async def work() -> None:
        import lancedb
        import pyarrow as pa

        connection = await lancedb.connect_async(tmp_path)
        await connection.create_table("theirs", pa.table({"x": [1]}))
        indexes = await Indexes.open(tmp_path)
        with pytest.raises(ServingError) as caught:
            await indexes.get("theirs")
        assert (caught.value.status, caught.value.code) == (409, "foreign_index")

    asyncio.run(work())


def test_a_folder_that_is_no_table_is_left_alone(tmp_path: Path) -> None:
    async def work() -> None:
        (tmp_path / "theirs.lance").mkdir()
        (tmp_path / "theirs.lance" / "precious.txt").write_text("x")
        indexes = await Indexes.open(tmp_path)
        description = Description({}, 8, SIGNATURE)
        for ask, code in (
            (indexes.get("theirs"), "foreign_index"),
            (indexes.drop("theirs"), "foreign_index"),
            (indexes.create("theirs", description), "index_exists"),
        ):
            with pytest.raises(ServingError) as caught:
                await ask
            assert (caught.value.status, caught.value.code) == (409, code)
        assert (tmp_path / "theirs.lance" / "precious.txt").read_text() == "x"

    asyncio.run(work())


def test_what_is_put_into_a_deleted_index_is_refused(tmp_path: Path) -> None:
    async def work(index: Index) -> None:
        indexes = await Indexes.open(tmp_path)
        late = await indexes.get("things")
        putting = asyncio.gather(late.upsert([item(0)]), indexes.drop("things"))
        await asyncio.gather(putting, return_exceptions=True)
        for change in (late.upsert([item(1)]), late.delete(parse_filter({"id": "a"}, {}))):
            with pytest.raises(ServingError) as caught:
                await change
            assert caught.value.code == "index_not_found"
        assert list(tmp_path.iterdir()) == []

    run(tmp_path, work)
