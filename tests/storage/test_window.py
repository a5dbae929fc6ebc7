from collections.abc import Sequence

from app.runs.event import Event
from app.storage.window import Window, Windows


def events(first: int, last: int, size: int = 10) -> Sequence[Event]:
    return [Event(seq, b"x" * size) for seq in range(first, last + 1)]


def window_of(windows: Windows, run_key: str) -> Window:
    window = windows.get(run_key)
    assert window is not None
    return window


def places(windows: Windows, run_key: str, *, after: int) -> list[int] | None:
    page = window_of(windows, run_key).page(after=after, max_events=100, max_bytes=10_000)
    return None if page is None else [event.seq for event in page.events]


def test_a_run_keeps_its_newest_events_within_its_bytes() -> None:
    windows = Windows(run_bytes=55)
    windows.extend("a", events(1, 4), is_ended=False)
    windows.extend("a", events(5, 8), is_ended=False)
    assert places(windows, "a", after=3) == [4, 5, 6, 7, 8]
    assert places(windows, "a", after=2) is None
    assert places(windows, "a", after=8) == []
    assert windows.size_bytes == 50


def test_an_event_that_is_larger_than_the_window_is_not_kept_and_its_place_is() -> None:
    windows = Windows(run_bytes=55)
    windows.extend("a", events(1, 3), is_ended=False)
    windows.extend("a", events(4, 4, size=1_000), is_ended=False)
    assert places(windows, "a", after=3) is None
    assert places(windows, "a", after=4) == []
    assert window_of(windows, "a").has_news(after=3)
    assert not window_of(windows, "a").has_news(after=4)
    windows.extend("a", events(5, 5), is_ended=False)
    assert places(windows, "a", after=4) == [5]


def test_a_run_taken_over_begins_its_window_where_it_goes_on() -> None:
    windows = Windows()
    windows.extend("a", events(41, 45), is_ended=False)
    assert places(windows, "a", after=40) == [41, 42, 43, 44, 45]
    assert places(windows, "a", after=39) is None


def test_of_the_runs_that_have_ended_the_ones_read_last_stay() -> None:
    windows = Windows(ended_runs=2)
    for run_key in ("a", "b"):
        windows.extend(run_key, events(1, 2), is_ended=True)
    assert windows.get("a") is not None
    windows.extend("c", events(1, 2), is_ended=True)
    assert [windows.get(run_key) is not None for run_key in ("a", "b", "c")] == [True, False, True]
    assert windows.size_bytes == 40


def test_the_page_of_an_ended_run_is_closed() -> None:
    windows = Windows()
    windows.extend("a", events(1, 2), is_ended=False)
    windows.extend("a", events(3, 3), is_ended=True)
    window = window_of(windows, "a")
    closed = [window.page(after=after, max_events=2, max_bytes=1_000) for after in range(4)]
    assert [page is not None and page.closed for page in closed] == [False, True, True, True]
    assert window.has_news(after=3)


def test_in_all_they_keep_to_their_bytes_ended_runs_go_first() -> None:
    windows = Windows(total_bytes=100)
    windows.extend("ended", events(1, 4), is_ended=True)
    windows.extend("old", events(1, 4), is_ended=False)
    windows.extend("new", events(1, 4), is_ended=False)
    assert windows.get("ended") is None
    assert windows.size_bytes == 80
    windows.extend("new", events(5, 7), is_ended=False)
    assert windows.size_bytes == 70
    assert places(windows, "new", after=0) == [1, 2, 3, 4, 5, 6, 7]
    assert places(windows, "old", after=0) is None
    assert window_of(windows, "old").last_seq == 4  # what waiting needs stays


def test_a_forgotten_run_gives_its_bytes_back() -> None:
    windows = Windows()
    windows.extend("a", events(1, 4), is_ended=False)
    windows.extend("b", events(1, 4), is_ended=True)
    windows.forget("a")
    windows.forget("b")
    windows.forget("c")
    assert (len(windows), windows.size_bytes) == (0, 0)
