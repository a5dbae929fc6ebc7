"""A run that nobody looks on at is noticed after the grace, and not while somebody does."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from app.runs.audience import Audiences
from app.runs.model import OnDisconnect, Run

GRACE_SECONDS = 0.02
WAIT_SECONDS = 10.0


def run(run_id: str, on_disconnect: OnDisconnect = "cancel") -> Run:
    return Run(
        owner="",
        run_id=run_id,
        thread_id="t",
        graph="graph",
        status="running",
        request={},
        fingerprint="",
        idempotency_key=None,
        stream_modes=(),
        metadata={},
        multitask_strategy="reject",
        on_disconnect=on_disconnect,
        epoch=1,
        attempt=1,
        crashes=0,
        last_seq=0,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


class Scene:
    """Audiences, and which runs everybody has left, in that order."""

    def __init__(self) -> None:
        self.audiences = Audiences(GRACE_SECONDS)
        self.left: list[str] = []
        self._news = asyncio.Event()

    def watch(self, watched: Run, name: str | None = None) -> None:
        self.audiences.watch(watched, lambda: self._note(name or watched.run_id))

    def _note(self, name: str) -> None:
        self.left.append(name)
        self._news.set()

    async def grace(self) -> None:
        """Return when a run that is watched from now on has been left: so would be any that was left before."""
        self.watch(run("probe"))
        async with asyncio.timeout(WAIT_SECONDS):
            while "probe" not in self.left:
                self._news.clear()
                await self._news.wait()
        self.left.remove("probe")
        self.audiences.forget("/probe")


def play(scenario: Callable[[Scene], Awaitable[None]]) -> None:
    async def inside() -> None:
        await scenario(Scene())

    asyncio.run(inside())


def test_a_run_that_nobody_ever_looked_on_at_is_left_after_the_grace() -> None:
    async def scenario(scene: Scene) -> None:
        scene.watch(run("a"))
        assert scene.left == []
        await scene.grace()
        assert scene.left == ["a"]

    play(scenario)


def test_the_grace_begins_anew_when_the_last_one_who_looks_on_goes() -> None:
    async def scenario(scene: Scene) -> None:
        scene.watch(run("a"))
        with scene.audiences.attach("/a"):
            with scene.audiences.attach("/a"):
                await scene.grace()
            await scene.grace()
            assert scene.left == []
        assert scene.left == []
        await scene.grace()
        assert scene.left == ["a"]

    play(scenario)


def test_nobody_need_look_on_at_a_run_that_goes_on_anyway() -> None:
    async def scenario(scene: Scene) -> None:
        scene.watch(run("a", "continue"))
        with scene.audiences.attach("/a"):
            pass
        await scene.grace()
        assert scene.left == []

    play(scenario)


def test_who_looked_on_while_a_run_waited_is_its_audience_when_it_begins() -> None:
    async def scenario(scene: Scene) -> None:
        scene.watch(run("a"), "dismissed")
        with scene.audiences.attach("/a"):
            scene.watch(run("a"), "cancelled")
            await scene.grace()
            assert scene.left == []
        await scene.grace()
        assert scene.left == ["cancelled"]

    play(scenario)


def test_nothing_becomes_of_a_run_that_has_ended_whoever_looks_on_or_goes() -> None:
    async def scenario(scene: Scene) -> None:
        scene.watch(run("a"))
        with scene.audiences.attach("/a"):
            scene.audiences.forget("/a")
            assert "/a" not in scene.audiences
        with scene.audiences.attach("/a"):
            pass
        scene.audiences.forget("/a")
        await scene.grace()
        assert scene.left == []

    play(scenario)
