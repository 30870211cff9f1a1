"""What a key has left: buckets that fill by the minute.

quota = Quota(Limits(requests=60)); quota.enter(); ...; quota.leave(usage)
"""

import math
import time

from trimodal_serving.caller import Usage
from trimodal_serving.errors import ServingError
from trimodal_serving.keys import Limits


class Bucket:
    """Holds what may be used in a minute, and fills again in one."""

    def __init__(self, per_minute: float) -> None:
        self._size = per_minute
        self._level = per_minute
        self._since = time.monotonic()

    def _fill(self) -> None:
        now = time.monotonic()
        self._level = min(self._size, self._level + (now - self._since) * self._size / 60)
        self._since = now

    def wait(self, need: float) -> float:
        """Seconds until it holds `need`, no more than all it can hold."""
        self._fill()
        return max(0.0, (min(need, self._size) - self._level) * 60 / self._size)

    def take(self, amount: float) -> None:
        """Take out; it may go below nothing, and then has to fill up first."""
        self._fill()
        self._level -= amount


class Quota:
    """The buckets of one key.

    A request is let in while there is something in all of them, since only its answer tells what
    it uses; what it uses beyond has to fill up again before the next is let in.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._requests = None if limits.requests is None else Bucket(limits.requests)
        amounts = {
            "tokens": limits.tokens,
            "pixels": limits.pixels,
            "audio_seconds": limits.audio_seconds,
        }
        self._buckets = {
            name: Bucket(amount) for name, amount in amounts.items() if amount is not None
        }
        self._in_flight = 0

    def enter(self) -> None:
        """Let a request in, which has to `leave`.

        Raises:
            ServingError: the key has nothing left; `retry_after` is when it has.
        """
        if self._in_flight >= self._limits.in_flight:
            message = f"the key has {self._in_flight} requests that are not answered yet"
            raise ServingError(429, "too_many_in_flight", message, retry_after=1)
        if self._requests is not None and (seconds := self._requests.wait(1)) > 0:
            raise _empty("rate_limit", "requests", seconds)
        for name, bucket in self._buckets.items():
            if (seconds := bucket.wait(1e-9)) > 0:
                raise _empty("quota", name, seconds)
        if self._requests is not None:
            self._requests.take(1)
        self._in_flight += 1

    def leave(self, usage: Usage) -> None:
        """Charge what an answered request has used."""
        self._in_flight -= 1
        for name, bucket in self._buckets.items():
            bucket.take(getattr(usage, name))


def _empty(code: str, name: str, seconds: float) -> ServingError:
    message = f"the key has used up its {name.replace('_', ' ')} of this minute"
    return ServingError(429, code, message, retry_after=max(1, math.ceil(seconds)))
