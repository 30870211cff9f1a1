"""What was answered to whom: series for Prometheus, and a line of JSON for each request.

ledger = Ledger(Metrics(), UsageLog("usage.jsonl")); ledger.answered(visit)
"""

import json
import logging
import math
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from trimodal.errors import StorageError
from trimodal_serving.access import PREFIXES, PUBLIC, SCOPE_OF
from trimodal_serving.caller import Caller
from trimodal_serving.metrics import Metrics

COMPLAINT_SECONDS = 60.0
"""Between two lines of the log about connections that there is no room for."""
CROWDED = "overloaded"

logger = logging.getLogger(__name__)


@dataclass
class Visit:
    """One request, as far as it may be written down."""

    request_id: str
    route: str
    caller: Caller | None = None
    """None until it got past the door."""
    status: int = 499
    reason: str | None = None
    """The code of a refusal."""
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)


def route_of(path: str) -> str:
    """A path of the server's own, for labels; whatever else clients write is `other`."""
    for prefix in PREFIXES:
        if path.startswith(prefix):
            return prefix + "{name}"
    return path if path in SCOPE_OF or path == PUBLIC else "other"


class UsageLog:
    """A file to which a line is added for each request that was let in; it holds no content."""

    def __init__(self, path: str | Path) -> None:
        """Open it.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
        self._file = os.fdopen(handle, "ab", buffering=0)
        self._broken = False

    def write(self, visit: Visit, caller: Caller) -> None:
        """Add a line; a full disk is complained about once, and fails no request."""
        tree = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": visit.request_id,
            "tenant": caller.tenant,
            "key": caller.key_id,
            "priority": caller.priority,
            "route": visit.route,
            "status": visit.status,
            "code": visit.reason,
            "seconds": round(visit.seconds, 4),
            "tokens": caller.usage.tokens,
            "pixels": caller.usage.pixels,
            "audio_seconds": round(caller.usage.audio_seconds, 3),
        }
        try:
            self._file.write(json.dumps(tree).encode() + b"\n")
            self._broken = False
        except OSError as error:
            if not self._broken:
                logger.error("the usage log cannot be written: %s", error.strerror)
            self._broken = True


class Ledger:
    """Writes down each request once it is over, and each connection that has none."""

    def __init__(self, metrics: Metrics, usage: UsageLog | None = None) -> None:
        self.metrics = metrics
        self._usage = usage
        self._crowd = 0
        """Connections that there was no room for since the log last said so."""
        self._complained = -math.inf

    def answered(self, visit: Visit) -> None:
        """Write down a request."""
        caller = visit.caller
        self.metrics.answered(visit.route, visit.status, visit.reason, visit.seconds, caller)
        if self._usage is not None and caller is not None and visit.route != PUBLIC:
            self._usage.write(visit, caller)

    def turned_away(self, reason: str) -> None:
        """Count a connection that was refused before it had a request, by the code of its answer.

        That there are too many connections is logged as well, at most once in `COMPLAINT_SECONDS`.
        """
        self.metrics.turned_away(reason)
        if reason != CROWDED:
            return
        self._crowd += 1
        now = time.monotonic()
        if now - self._complained >= COMPLAINT_SECONDS:
            logger.warning("connections refused, since there are as many as fit: %d", self._crowd)
            self._complained, self._crowd = now, 0
