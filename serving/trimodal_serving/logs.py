"""Logs as JSON lines without content: what failed and where in the code, never what it was given.

log_to_stderr()
"""

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

FRAMES = 20
"""Innermost places in the code that are told of an exception."""


class JsonLines(logging.Formatter):
    """A record as one line of JSON.

    The text of an exception of a library may hold what it was given, so of exceptions only the
    types and the places in the code are told.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        tree: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": os.getpid(),
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            tree["errors"] = _chain(record.exc_info[1])
        return json.dumps(tree)


def _chain(error: BaseException) -> list[dict[str, Any]]:
    """An exception and what caused it, outermost first."""
    found: list[dict[str, Any]] = []
    one: BaseException | None = error
    while one is not None and len(found) < FRAMES:
        frames = traceback.extract_tb(one.__traceback__)[-FRAMES:]
        places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        found.append({"type": type(one).__qualname__, "at": places})
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return found


def log_to_stderr(level: int = logging.WARNING) -> None:
    """Send all logs of this process to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
