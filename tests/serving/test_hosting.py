import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from trimodal.errors import StorageError
from trimodal_serving.backend import Setting
from trimodal_serving.hosting import Hosting, build_app
from trimodal_serving.keys import KeyFile


def get(hosting: Hosting, path: str, **headers: str) -> httpx.Response:
    """What the app says before it is started."""

    async def ask() -> httpx.Response:
        transport: Any = httpx.ASGITransport(app=build_app(hosting))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


def hosting(**options: Any) -> Hosting:
    return Hosting(name="tiny", setting=Setting("nowhere"), **options)


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
    assert "trimodal_ready 0" in answer.text


def test_requests_are_written_down(tmp_path: Path) -> None:
    log = tmp_path / "usage.jsonl"
    get(hosting(usage_log=str(log)), "/readyz")
    assert '"status": 503' in log.read_text()


def test_keys_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        build_app(hosting(keys=str(tmp_path)))
