import asyncio

from app.storage.bell import Bells


def test_a_ring_wakes_all_who_listen_and_nobody_who_comes_after() -> None:
    async def scenario() -> None:
        bells = Bells()
        with bells.listen("a") as first, bells.listen("a") as second, bells.listen("b") as other:
            bells.ring("a")
            assert first.is_set()
            assert second.is_set()
            assert not other.is_set()
            with bells.listen("a") as late:
                assert not late.is_set()

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
        assert event.is_set()
        second.__exit__(None, None, None)
        assert len(bells) == 0

    asyncio.run(scenario())


def test_all_are_rung_at_the_end() -> None:
    async def scenario() -> None:
        bells = Bells()
        with bells.listen("a") as first, bells.listen("b") as second:
            bells.ring_all()
            assert first.is_set()
            assert second.is_set()
        assert len(bells) == 0

    asyncio.run(scenario())
