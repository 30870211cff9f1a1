import asyncio

import pytest

from trimodal_serving.caller import Caller, Priority, acting
from trimodal_serving.turnstile import Turnstile


class Line:
    """Tasks behind one turnstile, and the order in which they were let in."""

    def __init__(self) -> None:
        self.turnstile = Turnstile()
        self.inside: list[str] = []
        self.most = 0
        self.gate = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def join(self, tenant: str, cost: float = 1, priority: Priority = "interactive") -> None:
        with acting(Caller(tenant, priority=priority)):
            self.tasks.append(asyncio.create_task(self._pass(tenant, cost)))

    async def _pass(self, tenant: str, cost: float) -> None:
        async with self.turnstile.turn(cost):
            self.inside.append(tenant)
            await self.gate.wait()
            if tenant == "broken":
                raise RuntimeError

    async def order(self) -> str:
        self.gate.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        return "".join(tenant[0] for tenant in self.inside)


def test_one_is_inside_and_a_tenant_waits_for_no_other_s_backlog() -> None:
    async def main() -> None:
        line = Line()
        for _ in range(20):
            line.join("noisy")
        await asyncio.sleep(0)
        line.join("quiet")
        line.join("bulky", priority="bulk")
        await asyncio.sleep(0.01)
        assert line.inside == ["noisy"]
        order = await line.order()
        assert order.index("q") <= 2
        assert order.index("b") <= 20

    asyncio.run(main())


def test_turns_are_equal_in_cost_and_not_in_number() -> None:
    async def main() -> None:
        line = Line()
        for _ in range(20):
            line.join("large", cost=10)
            line.join("small", cost=1)
        await asyncio.sleep(0.01)
        order = await line.order()
        assert order[:11].count("s") >= 8

    asyncio.run(main())


@pytest.mark.parametrize("which", [0, 1])
def test_who_leaves_or_fails_holds_nobody_up(which: int) -> None:
    async def main() -> None:
        line = Line()
        for tenant in ("alice", "bob", "broken", "carol"):
            line.join(tenant)
        await asyncio.sleep(0.01)
        line.tasks[which].cancel()
        assert len(await line.order()) == 4 - which
        line.join("dora")
        assert (await line.order()).endswith("d")

    asyncio.run(main())


def test_who_is_let_in_and_cancelled_at_once_holds_nobody_up() -> None:
    async def main() -> None:
        line = Line()
        async with line.turnstile.turn(1):
            line.join("bob")
            line.join("carol")
            await asyncio.sleep(0)
        line.tasks[0].cancel()  # it was let in, and does not know yet
        assert await line.order() == "c"

    asyncio.run(main())
