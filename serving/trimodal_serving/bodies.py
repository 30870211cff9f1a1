"""How many bytes of requests are in memory at once, and how fast they leave it.

bodies.take("alice", len(chunk)); ...; bodies.give("alice", len(body), seconds)
"""

import math
from collections import Counter

from trimodal_serving.errors import ServingError

LONGEST_RETRY = 60


class Bodies:
    """Counts bytes from their arrival until the answer, under one bound.

    One tenant gets no more than half of it, so that it cannot keep others out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: Counter[str] = Counter()
        self._seconds_per_byte = 0.0

    def take(self, tenant: str, size: int, alone: bool) -> None:
        """Hold bytes.

        Args:
            tenant: whose they are.
            size: how many.
            alone: whether there are no other tenants.

        Raises:
            ServingError: there is no room; `retry_after` is when half of it should be free.
        """
        most = self._limit if alone else self._limit // 2
        if self._held.total() + size > self._limit or self._held[tenant] + size > most:
            seconds = math.ceil(self._held.total() * self._seconds_per_byte / 2)
            raise ServingError(
                503,
                "overloaded",
                "the server is receiving too much at once",
                retry_after=min(max(1, seconds), LONGEST_RETRY),
            )
        self._held[tenant] += size

    def give(self, tenant: str, size: int, seconds: float) -> None:
        """Give bytes back.

        Args:
            tenant: whose they were.
            size: how many.
            seconds: how long they were held.
        """
        if not size:
            return
        # what was held all that time left at about this rate (Little's law)
        measured = seconds / max(size, self._held.total())
        old = self._seconds_per_byte
        self._seconds_per_byte = 0.8 * old + 0.2 * measured if old else measured
        self._held[tenant] -= size
        if not self._held[tenant]:
            del self._held[tenant]
