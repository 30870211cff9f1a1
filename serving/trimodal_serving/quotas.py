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
        self.size = per_minute
        self._level = per_minute
        self._since = time.monotonic()

    def _fill(self) -> None:
        now = time.monotonic()
        self._level = min(self.size, self._level + (now - self._since) * self.size / 60)
        self._since = now

    def after(self, amount: float) -> tuple[float, float]:
        """What is left once `amount` is taken out, and the seconds until it is full again."""
        self._fill()
        left = self._level - amount
        return left, (self.size - left) * 60 / self.size

    def wait(self, need: float) -> float:
        """Seconds until it holds `need`, no more than all it can hold."""
        self._fill()
        return max(0.0, (min(need, self.size) - self._level) * 60 / self.size)

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
            raise self._empty("rate_limit", "requests", seconds)
        for name, bucket in self._buckets.items():
            if (seconds := bucket.wait(1e-9)) > 0:
                raise self._empty("quota", name, seconds)
        if self._requests is not None:
            self._requests.take(1)
        self._in_flight += 1

    def leave(self, usage: Usage) -> None:
        """Charge what an answered request has used."""
        self._in_flight -= 1
        for name, bucket in self._buckets.items():
            bucket.take(getattr(usage, name))

    def rates(self, usage: Usage) -> dict[str, str]:
        """What is left, in the headers that answers of OpenAI have.

        Args:
            usage: what the request has used, which is not charged before it leaves.
        """
        buckets = {} if self._requests is None else {"requests": self._requests}
        headers: dict[str, str] = {}
        for name, bucket in {**buckets, **self._buckets}.items():
            left, seconds = bucket.after(getattr(usage, name, 0))
            word = name.replace("_", "-")
            headers[f"x-ratelimit-limit-{word}"] = str(math.floor(bucket.size))
            headers[f"x-ratelimit-remaining-{word}"] = str(max(0, math.floor(left)))
            headers[f"x-ratelimit-reset-{word}"] = _duration(seconds)
        return headers

    def _empty(self, code: str, name: str, seconds: float) -> ServingError:
        message = f"the key has used up its {name.replace('_', ' ')} of this minute"
        error = ServingError(429, code, message, retry_after=max(1, math.ceil(seconds)))
        error.rates = self.rates(Usage())
        return error


def _duration(seconds: float) -> str:
    """A time as Go writes it, which is what OpenAI's answers have: `120ms`, `1.5s`, `6m0s`."""
    thousandths = math.ceil(round(seconds * 1000, 3))
    if 0 < thousandths < 1000:
        return f"{thousandths}ms"
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"
