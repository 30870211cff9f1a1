"""How much work may be in the server at once, counted in tokens from the door to the answer.

with admission.admit(tokens) as ticket: ...
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from trimodal_serving.errors import ServingError

LONGEST_RETRY = 60


class Ticket:
    """The tokens that one request holds."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens


class Admission:
    """Lets requests in until `capacity` tokens are inside, and then turns them away at once.

    The request that crosses the line is still let in, so that none is too large to ever be.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._tickets: set[Ticket] = set()
        self._seconds_per_token = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of all requests that are inside."""
        return sum(ticket.tokens for ticket in self._tickets)

    @property
    def idle(self) -> bool:
        """Whether no request is inside."""
        return not self._tickets

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from a batch how fast the model is."""
        measured = seconds / max(1, tokens)
        old = self._seconds_per_token
        self._seconds_per_token = 0.8 * old + 0.2 * measured if old else measured

    @contextmanager
    def admit(self, tokens: int) -> Iterator[Ticket]:
        """Hold `tokens`, the most that the request can cost; correct the ticket once it is known.

        Raises:
            ServingError: the server is full; `retry_after` is when it should not be any more.
        """
        inside = self.tokens
        if inside >= self._capacity:
            seconds = math.ceil(inside * self._seconds_per_token)
            raise ServingError(
                429,
                "queue_full",
                "the server has as much work as it takes; send the request again later",
                retry_after=min(max(1, seconds), LONGEST_RETRY),
            )
        ticket = Ticket(tokens)
        self._tickets.add(ticket)
        try:
            yield ticket
        finally:
            self._tickets.remove(ticket)
