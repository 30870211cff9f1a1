"""Who may do what: everything but `/livez` needs a key, unless the server has none at all.

access = Access(KeyFile("keys.json")); caller = access.enter(path, raw_headers)
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from trimodal.errors import StorageError
from trimodal_serving.caller import PRIORITIES, Caller, Priority
from trimodal_serving.errors import ServingError
from trimodal_serving.keys import Key, KeyFile, find
from trimodal_serving.origins import check_origin, check_site
from trimodal_serving.quotas import Quota

PUBLIC = "/livez"
BEARER = b"authorization"
PLAIN = (b"api-key", b"x-api-key")
"""Headers that hold a key and nothing else, as clients of Azure and Anthropic send them."""
PRIORITY_HEADER = b"x-priority"
LOOK_SECONDS = 1.0
"""After which the file of keys is looked at again."""
MAX_HEADER = 4096

SCOPE_OF: dict[str, str | None] = {
    "/": None,
    "/readyz": None,
    "/health": None,
    "/v1/models": None,
    "/models": None,
    "/v1/audio/voices": None,
    "/metrics": "metrics",
    "/v1/embeddings": "embed",
    "/embeddings": "embed",
    "/v1/chat/completions": "generate",
    "/v1/audio/transcriptions": "generate",
    "/v1/audio/translations": "generate",
    "/v1/audio/speech": "generate",
    "/v1/images/generations": "generate",
    "/v1/similarity": "embed",
    "/v1/tokens/encode": "embed",
    "/v1/tokens/decode": "embed",
    "/v1/multimodalembeddings": "embed",
    "/v2/embed": "embed",
    "/embed": "embed",
    "/info": None,
    "/v2": None,
    "/v2/health/live": None,
    "/v2/health/ready": None,
    "/openapi.json": None,
    "/v1/indexes": "index",
    "/v1/search": "index",
}
"""What a key needs for a path; None for any key. A route that is not here opens to no key that
lacks any scope, so one that somebody forgets here is closed."""
PREFIXES = {
    "/playground/": None,
    "/v1/models/": None,
    "/v2/models/": "embed",
    "/v1/indexes/": "index",
}
"""The same of all paths below these."""

logger = logging.getLogger(__name__)

Headers = Iterable[tuple[bytes, bytes]]


def scope_of(path: str) -> frozenset[str]:
    """The scopes that a key needs for a path, exactly as the router sees it."""
    prefixes = [prefix for prefix in PREFIXES if path.startswith(prefix)]
    if path not in SCOPE_OF and not prefixes:
        return frozenset(scope for scope in SCOPE_OF.values() if scope)
    scope = SCOPE_OF[path] if path in SCOPE_OF else PREFIXES[prefixes[0]]
    return frozenset() if scope is None else frozenset({scope})


def generates(path: str) -> bool:
    """Whether outputs are asked for at a path."""
    return SCOPE_OF.get(path) == "generate"


class Access:
    """Decides on every request before anything of it is read but its head.

    Without keys everybody is the same tenant and may do everything, but not the pages of other
    sites; the command then listens on loopback only. With keys, changes of their file are seen
    within a second.
    """

    def __init__(self, file: KeyFile | None = None, *, anonymous: bool = False) -> None:
        """Read the keys.

        Args:
            file: of the keys.
            anonymous: without keys, let in whoever comes, and by whatever name.

        Raises:
            StorageError: see `KeyFile.load`.
        """
        self._file = file
        self._anonymous = anonymous
        self._keys: Mapping[str, Key] = {} if file is None else file.load()
        self._stamp = self._stamped()
        self._looked = time.monotonic()
        self._quotas: dict[str, tuple[Key, Quota]] = {}

    def enter(
        self, path: str, headers: Headers, is_route: Callable[[], bool] = lambda: True
    ) -> Caller:
        """Let a request in; it has to `leave`.

        Args:
            path: as the router sees it.
            headers: raw, so that one that is there twice is seen.
            is_route: whether anything is at the path; where nothing is, a valid key may hear so.

        Raises:
            ServingError: 401 without a valid key, 403 for a key that lacks a scope, 429 for one
                that has nothing left; see `check_site` and, without keys, `check_origin`.
        """
        headers = list(headers)
        if self._file is None and path != PUBLIC and not self._anonymous:
            check_origin(headers)
        if self._file is None or path == PUBLIC:
            return Caller(priority=_priority(headers, "interactive"))
        self._look()
        key = self._key(headers)
        check_site(path, headers)
        missing = scope_of(path) - set(key.scopes)
        if missing and is_route():
            message = f"the key lacks the scope {sorted(missing)[0]}"
            raise ServingError(403, "missing_scope", message)
        caller = Caller(key.tenant, key.id, _priority(headers, key.priority))
        caller.quota = self._quota(key)
        caller.quota.enter()
        return caller

    def leave(self, caller: Caller) -> None:
        """Charge a request's key for what it has used."""
        if caller.quota is not None:
            caller.quota.leave(caller.usage)

    def _key(self, headers: Headers) -> Key:
        given = [(name, value) for name, value in headers if name in (BEARER, *PLAIN)]
        if not given:
            message = "a key is needed: Authorization: Bearer KEY, or api-key or x-api-key"
            raise _refused("missing_api_key", message)
        secrets = {_secret(*header) for header in given}
        alike = len(secrets) == 1 and len(dict(given)) == len(given)
        key = find(self._keys, secrets.pop() if alike else "")
        if key is None:
            raise _refused("invalid_api_key", "the key is not one of this server")
        if not key.valid(datetime.now(UTC)):
            raise _refused("expired_api_key", "the key has expired, or was revoked")
        return key

    def _quota(self, key: Key) -> Quota:
        known = self._quotas.get(key.id)
        if known is None or known[0].limits != key.limits:
            known = self._quotas[key.id] = (key, Quota(key.limits))
        return known[1]

    def _look(self) -> None:
        """Read the keys again if their file has changed; a broken file changes nothing."""
        if self._file is None or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._file.load()
        except StorageError as error:
            logger.error("the keys stay as they were: %s", error)

    def _stamped(self) -> tuple[int, ...]:
        if self._file is None:
            return ()
        try:
            status = self._file.path.stat()
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_ino, status.st_size


def _priority(headers: Headers, highest: str) -> Priority:
    asked = [value.decode("latin-1") for name, value in headers if name == PRIORITY_HEADER]
    if any(value not in PRIORITIES for value in asked):
        message = f"x-priority must be one of {', '.join(PRIORITIES)}"
        raise ServingError(400, "invalid_priority", message)
    return "bulk" if "bulk" in (*asked, highest) else "interactive"


def _secret(name: bytes, value: bytes) -> str:
    """What a header says that the key is; nothing if it is of another form."""
    scheme, _, secret = (b"bearer", b" ", value) if name in PLAIN else value.partition(b" ")
    plain = scheme.lower() == b"bearer" and len(secret) <= MAX_HEADER
    return secret.strip().decode("latin-1") if plain else ""


def _refused(code: str, message: str) -> ServingError:
    return ServingError(401, code, message)
