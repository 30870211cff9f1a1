"""How much work may be in the server at once, counted in tokens from the door to the answer.

with admission.admit(tokens) as ticket: ...
"""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from trimodal_serving.caller import Caller, Flow, current
from trimodal_serving.errors import ServingError

LONGEST_RETRY = 60
QUEUE_SECONDS = 4.0
"""Work that may be inside, in the time that the model takes for it as far as was measured."""

REMEMBERED_TOKENS = 4096
"""Of which the last tell how long work takes."""
LEAST = 128
"""Part of the capacity that is let in however slow the model seems. On a CPU of 2 ms a token the
quarter that it once was held two minutes of work."""


Share = tuple[Flow, bool]
"""A tenant with a priority, and whether it generates."""


class Ticket:
    """The tokens that one request holds."""

    def __init__(self, admission: "Admission", tokens: int, caller: Caller) -> None:
        self._admission = admission
        self.tokens = tokens
        self.caller = caller

    def settle(self, tokens: int) -> None:
        """Hold what the request does cost, now that it is known."""
        self._admission.hold(self.caller, tokens - self.tokens)
        self.tokens = self.caller.cost = tokens
        if self.caller.on_cost is not None:
            self.caller.on_cost(tokens)


class Admission:
    """Lets requests in until the line is reached, and then turns them away at once.

    The line is `capacity` tokens, or what the model computes in `QUEUE_SECONDS` if that is less,
    but a small part of the capacity at least: only full batches tell how fast the model is.
    The request that crosses it is still let in, so that none is too large to ever be. A tenant
    that holds less than its share, which is as large as that of any other that is inside, is let
    in even then: nobody can fill the server for others, nor bulk for what is interactive, nor what
    is generated, which takes long, for what is embedded.
    """

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity
        self._held: Counter[Share] = Counter()
        self._requests: Counter[Share] = Counter()
        self._computed_tokens = self._computed_seconds = 0.0
        """Of what was computed last."""
        self._fastest = 0.0
        """Seconds a token of the batches with the least, which are full ones; rises slowly."""

    @property
    def tokens(self) -> int:
        """Tokens of all requests that are inside."""
        return self._held.total()

    @property
    def requests(self) -> int:
        """How many requests are inside."""
        return self._requests.total()

    @property
    def idle(self) -> bool:
        """Whether no request is inside."""
        return not self._requests

    @property
    def line(self) -> float:
        """Tokens at which requests are turned away."""
        if not self._fastest:
            return self._capacity
        return min(self._capacity, max(self._capacity / LEAST, QUEUE_SECONDS / self._fastest))

    def observe(self, tokens: float, seconds: float) -> None:
        """Learn from a batch how fast the model is."""
        measured = seconds / max(1, tokens)
        # many small batches say as much as their tokens, of which each takes them longest
        fades = REMEMBERED_TOKENS / (REMEMBERED_TOKENS + tokens)
        self._computed_tokens = fades * self._computed_tokens + tokens
        self._computed_seconds = fades * self._computed_seconds + seconds
        slower = 0.98 * self._fastest + 0.02 * measured
        self._fastest = min(measured, slower) if self._fastest else measured

    def hold(self, caller: Caller, tokens: int) -> None:
        """Count tokens of a caller's, or give them back."""
        self._held[_share(caller)] += tokens

    def check(self) -> None:
        """Return if a request of the running task's caller would be let in.

        Raises:
            ServingError: the server is full; `retry_after` is when it should not be any more.
        """
        inside, line = self.tokens, self.line
        share = line / max(2, len(self._requests))
        if inside < line or self._held[_share(current())] < share:
            return
        each = self._computed_seconds / max(1.0, self._computed_tokens)
        seconds = math.ceil(inside * each)
        raise ServingError(
            429,
            "queue_full",
            "the server has as much work as it takes; send the request again later",
            retry_after=min(max(1, seconds), LONGEST_RETRY),
        )

    @contextmanager
    def admit(self, tokens: int) -> Iterator[Ticket]:
        """Hold `tokens`, the most that the request can cost; settle the ticket once it is known.

        Raises:
            ServingError: see `check`.
        """
        self.check()
        ticket = Ticket(self, tokens, current())
        share = _share(ticket.caller)
        self.hold(ticket.caller, tokens)
        self._requests[share] += 1
        ticket.settle(tokens)
        try:
            yield ticket
        finally:
            self.hold(ticket.caller, -ticket.tokens)
            self._requests[share] -= 1
            if not self._requests[share]:
                del self._requests[share], self._held[share]


def _share(caller: Caller) -> Share:
    return caller.flow, caller.generates
