"""Servers that die and are replaced while every client listens, on the same data directory."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.clients.python_player import play, play_async
from tests.clients.stage import OPTIONS, Play, Stage, check_whole
from tests.e2e.proof import PACED_TEXT
from tests.e2e.proxy import CuttingProxy
from tests.server import running, wait_until

END_AT_ONCE = {"RUNSTREAM_SHUTDOWN_GRACE_SECONDS": "0.1"}
PATIENT = {**OPTIONS, "max_retry_seconds": 0.2, "retries": 1000}
STEP = {"do": "stream", "body": {"graph": "paced", "message": "hi"}}


def test_every_client_sees_its_run_go_on_after_a_crash_and_after_a_deploy(tmp_path: Path, play_in_node: Play) -> None:
    players: list[Play] = [play, lambda *scene: asyncio.run(play_async(*scene)), play_in_node]
    data_dir = tmp_path / "data"
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        proxies = [stack.enter_context(CuttingProxy(0)) for _ in players]

        def connect(port: int) -> None:
            for proxy in proxies:
                proxy.port = port

        def all_listen(attempt: int) -> bool:
            """The attempt's words come through to everybody."""
            return all(words_of(proxy, attempt) > 4 for proxy in proxies)

        with running(data_dir) as first:
            connect(first.port)
            playing = [pool.submit(play, p.url, PATIENT, [STEP]) for play, p in zip(players, proxies, strict=True)]
            wait_until(lambda: all_listen(1), "words of the first attempt")
            first.kill()
        with running(data_dir, env=END_AT_ONCE) as second:
            connect(second.port)
            wait_until(lambda: all_listen(2), "words of the second attempt")
            second.stop()
        with running(data_dir) as third:
            connect(third.port)
            for proxy, future in zip(proxies, playing, strict=True):
                [result] = future.result()
                check_whole(Stage(server=third, proxy=proxy), STEP, result)
                restarts = [frame for frame in result["frames"] if frame["event"] == "restart"]
                assert [(frame["attempt"], frame["reason"]) for frame in restarts] == [(2, "crash"), (3, "deploy")]
                assert result["frames"][-1]["event"] == "complete"
                assert list(result["texts"].values()) == [PACED_TEXT]
            with third.client() as client:
                assert len(client.get("/runs").json()["runs"]) == len(players)


def words_of(proxy: CuttingProxy, attempt: int) -> int:
    received = b"".join(bytes(exchange.response) for exchange in proxy.streams)
    _, _, newest = received.partition(b'"attempt":%d' % attempt)
    return newest.count(b'"token"')
