"""What an exception says stays in the log (wire contract, section 2, error codes)."""

import re

import httpx
import pytest

from tests.server import RunningServer, frames_of, run

SECRET = "hunter2"
ALL_MODES = ["updates", "messages", "custom", "values", "tasks", "checkpoints", "debug"]
GRAPHS = ["fails", "fails_below", "model_fails", "retries"]


def everything_about(client: httpx.Client, graph: str, **body: object) -> str:
    """All that a client can read of a run that failed."""
    answer = client.post("/runs/stream", json={"graph": graph, "input": {"messages": []}, **body})
    frames = frames_of(answer.text)
    run_id, thread_id = frames[0]["run_id"], frames[0]["thread_id"]
    pages = [
        f"/runs/{run_id}",
        f"/runs/{run_id}/stream",
        f"/runs/{run_id}/events",
        f"/runs?thread_id={thread_id}",
        f"/threads/{thread_id}",
        f"/threads/{thread_id}/state",
        f"/threads/{thread_id}/state?subgraphs=true",
        f"/threads/{thread_id}/history",
    ]
    texts = [answer.text]
    for page in pages:
        found = client.get(page)
        assert found.status_code == 200, page
        texts.append(found.text)
    texts.append(client.post("/threads/search", json={"ids": [thread_id]}).text)
    texts.append(client.post(f"/threads/{thread_id}/history", json={"limit": 100}).text)
    return "\n".join(texts)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize("modes", [["messages"], ["debug"], ["checkpoints"], ALL_MODES])
def test_an_exceptions_text_is_in_no_frame_and_in_no_state(
    client: httpx.Client, graph: str, subgraphs: bool, modes: list[str]
) -> None:
    text = everything_about(client, graph, stream_mode=modes, subgraphs=subgraphs)
    assert SECRET not in text
    assert "ValueError" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("graph", ["fails", "fails_below", "model_fails"])
def test_an_invoke_does_not_tell_it_either(client: httpx.Client, graph: str) -> None:
    body = {"graph": graph, "input": {"messages": []}, "stream_mode": ALL_MODES}
    assert SECRET not in client.post("/runs/invoke", json=body).text


def test_going_on_with_a_failed_thread_does_not_tell_it(client: httpx.Client) -> None:
    thread_id = run(client, graph="fails", input={})[0]["thread_id"]
    answer = client.post("/runs/stream", json={"thread_id": thread_id, "stream_mode": ALL_MODES})
    assert frames_of(answer.text)[-1]["event"] == "error"
    assert SECRET not in answer.text
    forked = client.get(f"/threads/{thread_id}/history").json()
    for state in forked:
        assert SECRET not in client.get(f"/threads/{thread_id}/state/{state['checkpoint_id']}").text


def test_the_log_has_the_text_and_the_runs_id(server: RunningServer, client: httpx.Client) -> None:
    run_id = run(client, graph="fails", input={})[0]["run_id"]
    found = re.search(rf"{run_id}.*?hunter2", server.log, re.DOTALL)
    assert found is not None
