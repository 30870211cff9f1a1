import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from trimodal.errors import ConfigError, StorageError
from trimodal_serving.backend import Setting
from trimodal_serving.errors import ServingError
from trimodal_serving.hosting import Hosting, _check_room, _services, build_app
from trimodal_serving.keys import KeyFile
from trimodal_serving.metrics import Metrics
from trimodal_serving.nursery import LastingNursery


def get(hosting: Hosting, path: str, **headers: str) -> httpx.Response:
    """What the app says before it is started."""

    async def ask() -> httpx.Response:
        transport: Any = httpx.ASGITransport(app=build_app(hosting))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


def hosting(**options: Any) -> Hosting:
    return Hosting(models={"tiny": Setting("nowhere")}, **options)


def test_it_lives_before_it_is_ready() -> None:
    assert get(hosting(), "/livez").status_code == 200
    assert get(hosting(), "/readyz").status_code == 503


def test_keys_stand_before_everything(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    _, secret = KeyFile(keys).add(tenant="alice", scopes=("metrics",))
    closed = hosting(keys=str(keys))
    assert get(closed, "/metrics").status_code == 401
    answer = get(closed, "/metrics", authorization=f"Bearer {secret}")
    assert answer.status_code == 200
    assert 'trimodal_ready{model="tiny"} 0' in answer.text


def test_requests_are_written_down(tmp_path: Path) -> None:
    log = tmp_path / "usage.jsonl"
    get(hosting(usage_log=str(log)), "/readyz")
    assert '"status": 503' in log.read_text()


def test_keys_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        build_app(hosting(keys=str(tmp_path)))


def test_hosts_that_are_none_are_refused() -> None:
    build_app(hosting(fetch_from=["images.example.org"]))
    with pytest.raises(ConfigError, match="fetch from http://a"):
        build_app(hosting(fetch_from=["http://a.org"]))


def test_all_processes_share_the_machine() -> None:
    models = {"one": Setting("a"), "two": Setting("b")}
    services = _services(Hosting(models=models, replicas=2), Metrics(), LastingNursery())
    settings = [engine._supervisor._setting for one in services.values() for engine in one.engines]
    assert [(x.model, x.replica, x.replicas) for x in settings] == [
        ("a", 0, 4),
        ("a", 1, 4),
        ("b", 2, 4),
        ("b", 3, 4),
    ]


def test_the_door_is_open_while_one_model_has_room() -> None:
    models = {"one": Setting("a"), "two": Setting("b")}
    services = _services(Hosting(models=models), Metrics(), LastingNursery())
    one, two = (service.engines[0].admission for service in services.values())
    with one.admit(1 << 30):
        _check_room(services)
        with two.admit(1 << 30), pytest.raises(ServingError) as caught:
            _check_room(services)
    assert caught.value.code == "queue_full"
