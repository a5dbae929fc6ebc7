"""/threads/{thread_id}/runs/stream: whatever runs on a thread, until the client leaves (wire contract, section 4)."""

from fastapi import APIRouter, Request, Response

from app.api.body import ThreadId
from app.api.context import ContextDep, OwnerDep, access_of
from app.api.example import LOG, frames
from app.api.start import reattach, recorded_view
from app.api.stream import EventStream, Frames
from app.errors import BadEventId, ThreadNotFound
from app.protocols.sse import dialect_of

router = APIRouter(prefix="/threads", tags=["threads"])


@router.get("/{thread_id}/runs/stream", response_class=Response, responses=frames(*LOG, ThreadNotFound, BadEventId))
async def follow_thread(thread_id: ThreadId, request: Request, context: ContextDep, owner: OwnerDep) -> Response:
    """The active run's frames, then those of the next runs. With `Last-Event-ID` also what came since."""
    await context.threads.get(owner, thread_id)
    opened = await reattach(context, owner, request, {})
    if opened is not None and opened.run.thread_id != thread_id:
        raise BadEventId("The event id is of another thread's run.")
    past, after = (opened.run, opened.after) if opened else (None, 0)
    recall = past is not None and recorded_view(past).recalls
    seat = context.streams.take(owner)
    frames = Frames(
        follow=lambda patience: context.runs.follow_thread(
            owner, thread_id, past=past, after=after, patience=patience, recall=recall
        ),
        streams=context.streams,
        view_of=recorded_view,
        dialect=dialect_of(request.headers.get("accept", "")),
        heartbeat_seconds=context.heartbeat_seconds,
        until=context.access.end_of(access_of(request)),
        seat=seat,
    )
    return EventStream(frames, headers={"Location": f"/threads/{thread_id}/runs/stream"})
