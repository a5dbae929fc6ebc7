"""What graph authors import: progress, events and tokens of their nodes, sync or async.

It depends on LangGraph only, and does nothing where a graph runs without this server:

    from app.streaming import progress, track

    async def index(state):
        for document in track(state["documents"], message="indexing"):
            ...
"""

from app.streaming.events import CallEvent, stream_events
from app.streaming.progress import ProgressUpdate, progress, stream_progress, track
from app.streaming.tokens import stream_tokens

__all__ = ["CallEvent", "ProgressUpdate", "progress", "stream_events", "stream_progress", "stream_tokens", "track"]
