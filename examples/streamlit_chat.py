"""A chat in Streamlit: pip install streamlit ./clients/python, then streamlit run examples/streamlit_chat.py."""

import os
import uuid
from collections.abc import Iterator

import streamlit as st
from runstream_client import Client, ProblemError, RunBody, is_end

GRAPH = os.environ.get("RUNSTREAM_GRAPH", "chat")


@st.cache_resource
def runstream() -> Client:
    return Client(os.environ.get("RUNSTREAM_URL", "http://localhost:8000"))


def answer(body: RunBody) -> Iterator[str]:
    """What the model says, as it says it; a question or a failure as a sentence."""
    for frame in runstream().stream(body):
        if frame["event"] == "token":
            yield frame["data"]["content"]
        elif frame["event"] == "restart" or frame["event"] == "discard":
            yield "\n\n*Once more:*\n\n"  # what was written can't be taken back here
        elif frame["event"] == "interrupt":
            yield from (f"\n\n**{question(asked['value'])}**" for asked in frame["interrupts"])
        elif frame["event"] == "error":
            yield f"\n\n{frame['error']}"
        if is_end(frame):
            st.session_state.has_run = True


def question(value: object) -> object:
    return value.get("question", value) if isinstance(value, dict) else value


def shown(message: dict[str, object]) -> None:
    with st.chat_message("user" if message["type"] == "human" else "assistant"):
        st.write(message["content"])


st.title("Chat")
# the thread's id is all that this page has to remember: the conversation is in the thread's state
thread_id = st.session_state.setdefault("thread_id", f"streamlit-{uuid.uuid4()}")
if st.session_state.get("has_run"):
    for message in runstream().state(thread_id)["values"].get("messages", []):
        shown(message)

if prompt := st.chat_input("Message"):
    shown({"type": "human", "content": prompt})
    with st.chat_message("assistant"):
        try:
            # on a thread that was paused by a question, the message is the answer
            st.write_stream(answer({"graph": GRAPH, "thread_id": thread_id, "message": prompt}))
        except ProblemError as problem:
            st.error(problem.detail)
