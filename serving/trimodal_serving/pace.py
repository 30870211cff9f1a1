"""How long batches take, learnt from those that were computed.

pace = Pace(); pace.observe(tokens=512, seconds=0.08); tokens = pace.fitting(0.05)
"""

FADES = 0.9
"""What is left of an observation with the next one."""
LEAST_SPREAD = 0.1
"""Of the sizes, to their mean, below which they do not tell what a token costs."""
LEAST_SLOPE = 0.1
"""Of a token, to the mean of tokens: beyond that, it is chance."""


class Pace:
    """Least squares, over observations that fade: a batch takes some time, and some for each token.

    The mean time of a token would be that of the small batches among large ones, of which it is
    many times as long.
    """

    def __init__(self) -> None:
        self._count = self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, tokens: float, seconds: float) -> None:
        """Learn from a batch."""
        self._count = FADES * self._count + 1
        self._x = FADES * self._x + tokens
        self._y = FADES * self._y + seconds
        self._xx = FADES * self._xx + tokens * tokens
        self._xy = FADES * self._xy + tokens * seconds

    def fitting(self, seconds: float) -> float | None:
        """Tokens of a batch that takes as long, or as twice one of next to none if that is longer.

        None before anything was observed.
        """
        line = self._line()
        if line is None:
            return None
        fixed, slope = line
        return max(seconds - fixed, fixed) / slope

    def seconds(self, tokens: float) -> float | None:
        """How long a batch takes; None before anything was observed."""
        line = self._line()
        return None if line is None else line[0] + line[1] * tokens

    def _line(self) -> tuple[float, float] | None:
        """Seconds of a batch, and of each token of it."""
        if not self._x or not self._y:
            return None
        x, y = self._x / self._count, self._y / self._count
        spread = self._xx / self._count - x * x
        slope = whole = y / x
        if spread > (LEAST_SPREAD * x) ** 2:
            slope = (self._xy / self._count - x * y) / spread
        slope = min(whole, max(LEAST_SLOPE * whole, slope))
        return y - slope * x, slope
