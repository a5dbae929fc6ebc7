import asyncio

from app.storage.bell import Bells


def test_a_ring_wakes_all_who_listen_and_nobody_who_comes_after() -> None:
    async def scenario() -> None:
        bells = Bells()
        with bells.listen("a") as first, bells.listen("a") as second, bells.listen("b") as other:
            bells.ring("a")
            assert first.has_rung
            assert second.has_rung
            assert not other.has_rung
            with bells.listen("a") as late:
                assert not late.has_rung

    asyncio.run(scenario())


def test_nothing_is_kept_for_a_log_that_nobody_listens_to() -> None:
    async def scenario() -> None:
        bells = Bells()
        bells.ring("a")
        assert len(bells) == 0
        with bells.listen("a"), bells.listen("a"):
            assert len(bells) == 1
        assert len(bells) == 0

    asyncio.run(scenario())


def test_one_who_leaves_after_a_ring_does_not_take_the_next_bell_with_him() -> None:
    async def scenario() -> None:
        bells = Bells()
        with bells.listen("a"):
            bells.ring("a")
            second = bells.listen("a")
            event = second.__enter__()
        bells.ring("a")
        assert event.has_rung
        second.__exit__(None, None, None)
        assert len(bells) == 0

    asyncio.run(scenario())


def test_all_are_rung_at_the_end() -> None:
    async def scenario() -> None:
        bells = Bells()
        with bells.listen("a") as first, bells.listen("b") as second:
            bells.ring_all()
            assert first.has_rung
            assert second.has_rung
        assert len(bells) == 0

    asyncio.run(scenario())


def test_who_waits_is_told_whether_it_rang() -> None:
    async def scenario() -> None:
        bells = Bells()
        with bells.listen("a") as bell:
            assert not await bell.wait(0)
            leaving, waiting = (asyncio.ensure_future(bell.wait(seconds)) for seconds in (None, 60))  # noqa: TID251
            await asyncio.sleep(0)
            leaving.cancel()
            bells.ring("a")
            assert await waiting
            assert await bell.wait(0)

    asyncio.run(scenario())
