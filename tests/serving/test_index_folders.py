"""Tenants have indexes of their own, of which the others see nothing."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from trimodal.models import TrimodalModel
from trimodal_serving import index_folders as module
from trimodal_serving.access import Access
from trimodal_serving.caller import Caller, acting
from trimodal_serving.engine import Engine
from trimodal_serving.errors import ServingError
from trimodal_serving.index_folders import IndexFolders
from trimodal_serving.keys import KeyFile
from trimodal_serving.store import Description, Indexes

DESCRIPTION = Description({}, 8, np.eye(8, dtype=np.float32)[0])


def test_each_tenant_has_its_own(tmp_path: Path) -> None:
    async def work() -> None:
        folders = await IndexFolders.open(tmp_path)
        bob, big_bob = [await folders.of(Caller(name, "key")) for name in ("bob", "Bob")]
        for indexes in (bob, big_bob):
            await indexes.create("things", DESCRIPTION)
        await bob.create("more", DESCRIPTION)
        assert await (await folders.of(Caller("bob", "another key"))).names() == ["more", "things"]
        assert await big_bob.names() == ["things"]
        assert await (await folders.of(Caller())).names() == []
        again = await IndexFolders.open(tmp_path)
        assert await (await again.of(Caller("bob", "key"))).names() == ["more", "things"]

    asyncio.run(work())
    names = [path.name.lower() for path in (tmp_path / "tenants").iterdir()]
    assert len(set(names)) == 2, "apart even where capitals do not count"


def test_without_keys_the_folder_itself_is_used(tmp_path: Path) -> None:
    async def work() -> None:
        await (await Indexes.open(tmp_path)).create("before", DESCRIPTION)
        folders = await IndexFolders.open(tmp_path)
        assert await (await folders.of(Caller())).names() == ["before"]
        # a tenant of this name is still not everybody
        with pytest.raises(ServingError):
            await (await folders.of(Caller("anonymous", "key"))).get("before")

    asyncio.run(work())


def test_through_the_server(
    tmp_path: Path, model: TrimodalModel, serve: Callable[..., Any]
) -> None:
    file = KeyFile(tmp_path / "keys.json")
    secrets = {name: file.add(tenant=name, scopes=("index",))[1] for name in ("alice", "bob")}
    engine = Engine(lambda: model)
    with serve(engine, indexes=tmp_path / "indexes", access=Access(file)) as server:
        server.wait_until_ready(secrets["alice"])

        def ask(tenant: str, method: str, path: str, **fields: Any) -> httpx.Response:
            headers = {"authorization": f"Bearer {secrets[tenant]}"}
            address = f"{server.url}{path}"
            return httpx.request(method, address, headers=headers, json=fields or None)

        assert ask("alice", "POST", "/v1/indexes", name="pets").status_code == 201
        items = [{"id": "a", "input": "secret"}]
        put = ask("alice", "POST", "/v1/indexes/pets/items", model="tiny", items=items)
        assert put.json()["put"] == 1
        assert ask("bob", "GET", "/v1/indexes").json()["data"] == []
        for method, path in [
            ("GET", "/v1/indexes/pets"),
            ("GET", "/v1/indexes/pets/items/a"),
            ("DELETE", "/v1/indexes/pets"),
        ]:
            refused = ask("bob", method, path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (
                404,
                "index_not_found",
            )
        found = ask("bob", "POST", "/v1/search", model="tiny", index="pets", query="secret")
        assert found.status_code == 404
        assert ask("bob", "POST", "/v1/indexes", name="pets").status_code == 201
        found = ask("alice", "POST", "/v1/search", model="tiny", index="pets", query="secret")
        assert [one["id"] for one in found.json()["data"]] == ["a"]


def test_the_work_of_all_tenants_is_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WORK", 10)

    async def work() -> None:
        folders = await IndexFolders.open(tmp_path)
        alice, bob = Caller("alice", "key"), Caller("bob", "another key")
        mine, other = [
            await (await folders.of(caller)).create("things", DESCRIPTION)
            for caller in (alice, bob)
        ]
        vector = DESCRIPTION.signature
        with acting(alice), mine._admission.admit(1000):
            with pytest.raises(ServingError, match="as much work as it takes"):
                await mine.search(vector, 1)
            with acting(bob):  # who holds less than his share
                assert await other.search(vector, 1) == []
                with other._admission.admit(1000), pytest.raises(ServingError):
                    await other.search(vector, 1)

    asyncio.run(work())
