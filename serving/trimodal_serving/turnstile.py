"""One at a time, in fair turns: what cannot be divided into batches waits here for the model.

async with turnstile.turn(cost=tokens): await something()
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trimodal_serving.caller import PRICES, current
from trimodal_serving.turns import Turns


class Turnstile:
    """Lets one in; of those that wait the next is whose tenant has had the least, see `Turns`."""

    def __init__(self) -> None:
        self._waiting: Turns[asyncio.Future[None]] = Turns(PRICES)
        self._taken = False

    @asynccontextmanager
    async def turn(self, cost: float) -> AsyncIterator[None]:
        """Be the one who is let in; whoever is cancelled does not wait any more.

        Args:
            cost: what the caller of the running task has of it.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        number = self._waiting.add(current().flow, future, cost)
        self._let_in()
        try:
            await future
            yield
        finally:
            self._waiting.drop(number)
            if future.done() and not future.cancelled():
                self._taken = False
            self._let_in()

    def _let_in(self) -> None:
        if self._taken:
            return
        for number, future in self._waiting.ordered():
            if not future.done():  # one that was cancelled a moment ago takes itself out
                self._waiting.take([number])
                self._taken = True
                future.set_result(None)
                return
