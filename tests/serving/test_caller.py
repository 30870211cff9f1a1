import asyncio

from trimodal_serving.caller import ANYBODY, Caller, Usage, acting, current


def test_tasks_work_for_whoever_started_them() -> None:
    async def whose() -> str:
        await asyncio.sleep(0)
        return current().tenant

    async def main() -> list[str]:
        with acting(Caller("alice")):
            alice = asyncio.create_task(whose())
            inside = await asyncio.to_thread(lambda: current().tenant)
            with acting(Caller("bob", priority="bulk")) as bob:
                assert bob.flow == ("bulk", "bob")
                other = asyncio.create_task(whose())
        return [await alice, await other, inside, current().tenant]

    assert asyncio.run(main()) == ["alice", "bob", "alice", ANYBODY]


def test_nobody_s_usage_is_shared() -> None:
    current().usage.add(Usage(5))
    assert current().usage.tokens == 0
    usage = Usage(1, 2, 0.5)
    usage.add(Usage(3, 4, 0.25))
    assert usage == Usage(4, 6, 0.75)
