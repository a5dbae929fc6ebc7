"""The text of messages, from their tokens."""

from collections.abc import Iterable

from runstream_client.frame import Frame


class Transcript:
    """`texts` has the text of each message by its id, in the order in which they began.

    Text that became void is taken out again. Give it every frame, in order.
    """

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def take(self, frame: Frame) -> bool:
        """Whether the frame changed anything."""
        if frame["event"] == "token":
            data = frame["data"]
            self.texts[data["id"]] = self.texts.get(data["id"], "") + data.get("content", "")
            return True
        if frame["event"] == "restart" or frame["event"] == "discard":
            void = [self.texts.pop(id, None) for id in frame["discard"]]
            return any(text is not None for text in void)
        return False


def text(frames: Iterable[Frame]) -> dict[str, str]:
    """The text of each message by its id."""
    transcript = Transcript()
    for frame in frames:
        transcript.take(frame)
    return transcript.texts
