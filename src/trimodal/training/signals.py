"""Requests to stop: SIGTERM and SIGUSR1, which schedulers send before they take a machine back.

with StopRequest() as stop: ...; stop.begin(); ...; stop.name
"""

import ctypes
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from trimodal.errors import StoppedError

PR_SET_PDEATHSIG = 1
"""Of Linux: which signal a process gets when its parent ends."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
GRACE = 25.0
"""Seconds for what a stop has to save; torchrun kills 30 seconds after it has sent a signal."""


class _Ended(BaseException):
    """A signal came before the first step; no `except Exception` is to take it for its own."""


class StopRequest:
    """Ends what is made ready for the first step at once; from then on it notes the first signal.

    Those that follow within `GRACE` are ignored: a scheduler sends its signal to every process, and
    a launcher that gets it too sends its own to each rank. One that comes later ends the process as
    it would without this.

    Raises:
        StoppedError: at the end of `with`, if a signal came before `begin`.
    """

    def __init__(self) -> None:
        self.name = ""
        """Of the signal that came, empty before."""
        self._begun = False
        self._since = 0.0
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        # only the main thread may say what becomes of a signal
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._give_back()
        if isinstance(error, _Ended):
            raise StoppedError(
                f"stopped by {self.name} before the first step; the same command begins again"
            ) from None

    def begin(self) -> None:
        """Before each step: from the first one on there is something to save."""
        if not self._begun:
            self._begun = True
            if self.name:  # it was raised where nothing can be
                raise _Ended

    def _note(self, number: int, _: FrameType | None) -> None:
        if not self.name:
            self.name, self._since = signal.Signals(number).name, time.monotonic()
            if not self._begun:
                raise _Ended
        elif time.monotonic() - self._since > GRACE:
            self._give_back()
            signal.raise_signal(number)

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
