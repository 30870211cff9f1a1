"""API keys in a JSON file that only its owner can read; of a secret only the digest is kept.

secret = KeyFile("keys.json").add(tenant="alice", scopes=("embed",)); KeyFile("keys.json").load()
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trimodal.errors import ConfigError, StorageError, TrimodalError
from trimodal.schema import parse
from trimodal_serving.caller import PRIORITIES

SCOPES = ("embed", "generate", "index", "metrics")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}")
SECRET = re.compile(r"tri_([0-9a-f]{16})_[A-Za-z0-9_\-]{43}")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a key may use in a minute, all of it at once if it likes; None is without a limit."""

    requests: float | None = None
    tokens: float | None = None
    pixels: float | None = None
    audio_seconds: float | None = None
    in_flight: int = 64
    """Requests that are answered at the same time."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not value > 0:
                raise ConfigError(f"limits.{name}: must be above 0")


@dataclass(frozen=True, kw_only=True)
class Key:
    """What is known of a key."""

    id: str
    tenant: str
    sha256: str
    """Of the whole secret, which has 256 random bits, so that nothing slower is needed."""
    scopes: tuple[str, ...]
    created: str
    expires: str | None = None
    """After which it opens nothing, in UTC as ISO 8601 has it."""
    revoked: str | None = None
    priority: str = "interactive"
    """The highest that its requests may have."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.tenant):
            raise ConfigError("tenant: must be letters, digits and any of . _ - only, 64 at most")
        if not self.scopes or not set(self.scopes) <= set(SCOPES):
            raise ConfigError(f"scopes: must be any of {', '.join(SCOPES)}")
        if self.priority not in PRIORITIES:
            raise ConfigError(f"priority: must be one of {', '.join(PRIORITIES)}")
        for name in ("expires", "revoked"):
            _time(getattr(self, name), name)

    def valid(self, now: datetime) -> bool:
        """Whether it opens anything at a time."""
        expires = _time(self.expires, "expires")
        return self.revoked is None and (expires is None or now < expires)


def _time(text: str | None, name: str) -> datetime | None:
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{name}: must be a time as ISO 8601 has it") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def find(keys: Mapping[str, Key], secret: str) -> Key | None:
    """The key of a secret, valid or not; takes the same time whatever is wrong with it."""
    form = SECRET.fullmatch(secret)
    key = keys.get(form[1]) if form else None
    known = digest("") if key is None else key.sha256
    same = hmac.compare_digest(digest(secret), known)
    return key if same else None


class KeyFile:
    """A file of keys; changes replace it as a whole, one process at a time."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def load(self) -> dict[str, Key]:
        """The keys by their ids.

        Raises:
            StorageError: it cannot be read, others may read or write it, or it is not of this form.
        """
        try:
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode & 0o777
                if mode & 0o077:
                    raise StorageError(
                        f"{self.path}: others than its owner may use it (mode {mode:o}); "
                        f"chmod 600 {self.path}"
                    )
                tree = json.load(file)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise StorageError(f"{self.path}: is not JSON") from error
        rows = tree.get("keys") if isinstance(tree, dict) else None
        if not isinstance(rows, list):
            raise StorageError(f"{self.path}: has no list of keys")
        try:
            keys = [parse(Key, row, f"keys[{i}]") for i, row in enumerate(rows)]
        except TrimodalError as error:
            raise StorageError(f"{self.path}: {error}") from error
        return {key.id: key for key in keys}

    def add(
        self,
        *,
        tenant: str,
        scopes: tuple[str, ...],
        expires: datetime | None = None,
        priority: str = "interactive",
        limits: Limits | None = None,
    ) -> tuple[Key, str]:
        """Add a key; returns it with its secret, which is nowhere else.

        Raises:
            ConfigError: a tenant, scope, priority or limit that cannot be.
            StorageError: the file cannot be read or written.
        """
        number = secrets.token_hex(8)
        secret = f"tri_{number}_{secrets.token_urlsafe(32)}"
        key = Key(
            id=number,
            tenant=tenant,
            sha256=digest(secret),
            scopes=scopes,
            created=_now(),
            expires=None if expires is None else expires.astimezone(UTC).isoformat(),
            priority=priority,
            limits=limits or Limits(),
        )
        with self._changing(create=True) as keys:
            keys[number] = key
        return key, secret

    def revoke(self, number: str) -> Key:
        """Let a key open nothing any more.

        Raises:
            ConfigError: there is none of that id.
            StorageError: the file cannot be read or written.
        """
        with self._changing() as keys:
            if number not in keys:
                raise ConfigError(f"{self.path}: has no key {number}")
            if keys[number].revoked is None:
                keys[number] = replace(keys[number], revoked=_now())
            return keys[number]

    @contextlib.contextmanager
    def _changing(self, *, create: bool = False) -> Iterator[dict[str, Key]]:
        with self._locked():
            keys = {} if create and not self.path.exists() else self.load()
            yield keys
            self._write({"keys": [asdict(key) for key in keys.values()]})

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock = os.open(f"{self.path}.lock", os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _write(self, tree: dict[str, Any]) -> None:
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(tree, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
