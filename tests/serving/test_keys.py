import json
import multiprocessing
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trimodal.errors import ConfigError, StorageError
from trimodal_serving import keys as module
from trimodal_serving.keys import KeyFile, Limits, find

NOW = datetime.now(UTC)


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def test_only_the_secret_opens(file: KeyFile) -> None:
    key, secret = file.add(tenant="alice", scopes=("embed",), limits=Limits(tokens=100))
    other, _ = file.add(tenant="bob", scopes=("embed", "generate"), priority="bulk")
    keys = file.load()
    assert list(keys.values()) == [key, other]
    assert find(keys, secret) == key
    wrong = "A" if secret[-1] != "A" else "B"
    for bad in ("", key.id, secret[:-1], secret + "A", secret[:-1] + wrong, secret.upper()):
        assert find(keys, bad) is None
    assert find(keys, secret.replace(key.id, other.id)) is None


def test_the_file_is_its_owner_s_and_holds_no_secret(file: KeyFile) -> None:
    _, secret = file.add(tenant="alice", scopes=("embed",))
    assert os.stat(file.path).st_mode & 0o777 == 0o600
    text = file.path.read_text()
    assert secret not in text
    assert secret.rpartition("_")[2] not in text
    assert re.fullmatch(r"tri_[0-9a-f]{16}_[A-Za-z0-9_\-]{43}", secret)
    file.path.chmod(0o640)
    with pytest.raises(StorageError, match="chmod 600"):
        file.load()


def test_the_digest_is_compared_in_constant_time(
    file: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = file.add(tenant="alice", scopes=("embed",))
    compared: list[tuple[int, int]] = []
    real = module.hmac.compare_digest

    def counted(one: Any, other: Any) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(module.hmac, "compare_digest", counted)
    for attempt in (secret, secret[:-1], "", "tri_0000000000000000_" + "A" * 43):
        find(file.load(), attempt)
    assert compared == [(64, 64)] * 4


def test_expired_and_revoked_keys_are_not_valid(file: KeyFile) -> None:
    old, _ = file.add(tenant="a", scopes=("embed",), expires=NOW - timedelta(seconds=1))
    new, _ = file.add(tenant="a", scopes=("embed",), expires=NOW + timedelta(hours=1))
    ever, _ = file.add(tenant="a", scopes=("embed",))
    revoked = file.revoke(ever.id)
    assert file.revoke(ever.id) == revoked
    valid = {number: key.valid(NOW) for number, key in file.load().items()}
    assert valid == {old.id: False, new.id: True, ever.id: False}
    with pytest.raises(ConfigError, match="has no key"):
        file.revoke("0" * 16)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"tenant": "a b"}, "tenant"),
        ({"scopes": ("admin",)}, "scopes"),
        ({"scopes": ()}, "scopes"),
        ({"priority": "first"}, "priority"),
    ],
)
def test_what_cannot_be_is_not_written(file: KeyFile, wrong: dict[str, Any], problem: str) -> None:
    given: dict[str, Any] = {"tenant": "alice", "scopes": ("embed",)}
    with pytest.raises(ConfigError, match=problem):
        file.add(**{**given, **wrong})
    with pytest.raises(ConfigError, match="must be above 0"):
        Limits(tokens=0)
    assert not file.path.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "has no list of keys"),
        ('{"keys": [{"id": "a"}]}', r"keys\[0\]"),
        ('{"keys": [3]}', r"keys\[0\]"),
    ],
)
def test_a_broken_file_is_named(file: KeyFile, text: str, problem: str) -> None:
    file.path.write_text(text)
    file.path.chmod(0o600)
    with pytest.raises(StorageError, match=problem) as caught:
        file.load()
    assert str(file.path) in str(caught.value)


def test_a_missing_file_is_named(file: KeyFile) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        file.load()


def _add_ten(path: str) -> None:
    for _ in range(10):
        KeyFile(path).add(tenant="a", scopes=("embed",))


def test_processes_that_add_at_once_lose_nothing(file: KeyFile) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_ten, args=(str(file.path),)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(file.load()) == 30
    assert len(json.loads(file.path.read_text())["keys"]) == 30
