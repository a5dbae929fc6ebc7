"""Servers that die and are replaced while EventSource listens, on the same data directory."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.conftest import RunScript
from tests.e2e.proof import PACED_TEXT, assert_whole, runs_of
from tests.e2e.proxy import CuttingProxy
from tests.server import events, running, spoken, wait_until

END_AT_ONCE = {"RUNSTREAM_SHUTDOWN_GRACE_SECONDS": "0.1"}


def test_eventsource_sees_its_run_go_on_after_a_crash_and_after_a_deploy(
    tmp_path: Path, node_script: RunScript
) -> None:
    data_dir = tmp_path / "data"
    with ThreadPoolExecutor() as pool, CuttingProxy(0) as proxy:

        def listens(attempt: int) -> bool:
            """The attempt's words come through."""
            received = b"".join(bytes(exchange.response) for exchange in proxy.streams)
            _, _, newest = received.partition(b'"attempt":%d' % attempt)
            return newest.count(b'"token"') > 4

        with running(data_dir) as first:
            proxy.port = first.port
            url = f"{proxy.url}/runs/stream?graph=paced&message=hi&thread_id=moved"
            client = pool.submit(node_script, "eventsource.mjs", url=url)
            wait_until(lambda: listens(1), "words of the first attempt")
            first.kill()
        with running(data_dir, env=END_AT_ONCE) as second:
            proxy.port = second.port
            wait_until(lambda: listens(2), "words of the second attempt")
            second.stop()
        with running(data_dir) as third:
            proxy.port = third.port
            seen = client.result()
            frames = assert_whole(third, seen["texts"])
            assert len(runs_of(third, "moved")) == 1

    restarts = [frame for frame in frames if frame["event"] == "restart"]
    assert [(frame["attempt"], frame["reason"]) for frame in restarts] == [(2, "crash"), (3, "deploy")]
    void = {message_id for frame in restarts for message_id in frame["discard"]}
    texts = spoken(frames)
    assert [text for message_id, text in texts.items() if message_id not in void] == [PACED_TEXT]
    assert void < set(texts)
    assert events(frames).count("node") == 1
    assert seen["ids"] == [f"{frames[0]['run_id']}.{frame['seq']}" for frame in frames]
    assert (seen["code"], proxy.streams[-1].status) == (204, 204)
