import asyncio

from app.storage.turn import CHECK_SECONDS, REST_SECONDS, ThreadTurns


async def spin(seconds: float) -> None:
    """Keep the loop busy: it always has something to do."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:  # noqa: ASYNC110 - a loop that never rests is what is tested
        await asyncio.sleep(0)


def test_a_busy_loop_rests_again_and_again_as_long_as_it_waits_for_a_thread() -> None:
    rests: list[float] = []

    async def scenario() -> None:
        turns = ThreadTurns(rest=rests.append)
        turns.begin()
        turns.begin()
        turns.end()
        while len(rests) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        turns.end()
        assert set(rests) == {REST_SECONDS}
        rests.clear()
        await spin(CHECK_SECONDS * 5)
        assert not rests

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_loop_that_waits_for_no_thread_does_not_rest() -> None:
    rests: list[float] = []

    async def scenario() -> None:
        turns = ThreadTurns(rest=rests.append)
        for _ in range(3):
            turns.begin()
            turns.end()
        await spin(CHECK_SECONDS * 5)
        assert not rests

    asyncio.run(scenario())
