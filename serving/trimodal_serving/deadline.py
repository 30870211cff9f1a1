"""By when a request must be answered, whatever it asks for.

deadline = Deadline(600.0, began=time.monotonic()); await asyncio.wait(tasks, timeout=deadline.left)
"""

import asyncio
import time
from collections.abc import AsyncIterator

from trimodal_serving.errors import ServingError, too_late

REQUEST_SECONDS = 600.0
"""After which OpenAI's clients give up by themselves."""


class Deadline:
    """The end of the time that a request has; the sending of its answer has no end."""

    def __init__(self, seconds: float | None, began: float) -> None:
        """Begin to count.

        Args:
            seconds: that a request has; None is for ever.
            began: when its head was there, by `time.monotonic`.
        """
        self._seconds = seconds
        self._began = began

    @property
    def left(self) -> float | None:
        """Seconds until then; None is for ever."""
        if self._seconds is None:
            return None
        return max(0.0, self._began + self._seconds - time.monotonic())

    def missed(self) -> ServingError:
        """What is said when it has passed."""
        return too_late(self._seconds or 0.0)

    async def pieces(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What comes of a body in time; what makes it is given up then.

        Raises:
            ServingError: the time has passed.
        """
        while True:
            try:
                async with asyncio.timeout(self.left):
                    piece = await anext(body)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise self.missed() from None
            yield piece
