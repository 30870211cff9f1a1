"""An end to a step that never ends: every stack is printed, then the process.

with Watchdog(seconds=1800) as watchdog: watchdog.step()
"""

import faulthandler

STDERR = 2


class Watchdog:
    """Ends a process, with status 1, whose steps stop coming; 0 seconds for none.

    Of several ranks one that hangs holds up all in a collective, so each shows where it stands.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> "Watchdog":
        self.step()
        return self

    def __exit__(self, *_: object) -> None:
        if self.seconds:
            faulthandler.cancel_dump_traceback_later()

    def step(self) -> None:
        """Begin to count anew."""
        if self.seconds:
            # not sys.stderr, which may be an object without a descriptor
            faulthandler.dump_traceback_later(self.seconds, exit=True, file=STDERR)
