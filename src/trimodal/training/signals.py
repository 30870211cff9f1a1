"""Requests to stop: SIGTERM and SIGUSR1, which schedulers send before they take a machine back.

with StopRequest() as stop: ...; stop.name
"""

import ctypes
import signal
import sys
import threading
from types import FrameType
from typing import Any

PR_SET_PDEATHSIG = 1
"""Of Linux: which signal a process gets when its parent ends."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Notes the first signal; a second one ends the process as it would without this."""

    def __init__(self) -> None:
        self.name = ""
        """Of the signal that came, empty before."""
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        # only the main thread may say what becomes of a signal
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        self._give_back()

    def _give_back(self) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}


def follow_parent(_: int = 0) -> None:
    """In a loader's process: it ends with the one that trains, however that ends, and not before.

    torch's loader looks for its parent only while it waits for work, and can wait for a lock that
    a killed parent held.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
