"""What graph authors import: progress of long work, and events of their own, from any node, sync or async.

It depends on LangGraph only, and does nothing where a graph runs without this server:

    from app.streaming import progress, track

    async def index(state):
        for document in track(state["documents"], message="indexing"):
            ...
"""

from app.streaming.events import CallEvent, stream_events
from app.streaming.progress import ProgressUpdate, progress, stream_progress, track

__all__ = ["CallEvent", "ProgressUpdate", "progress", "stream_events", "stream_progress", "track"]
