"""A server that is killed again and again, at any moment, behind a bad network: every client gets all there is.

Thirty kills in the suite; as many as RUNSTREAM_KILLS says (500) with RUNSTREAM_LONG_TESTS=1.
"""

import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.faults.check import Talk, check_talk
from tests.faults.nursery import IS_LONG, Nursery
from tests.faults.rough import GIVE_UP_SECONDS, Client, RoughProxy
from tests.faults.script import SCRIPTS
from tests.faults.serve import Serving
from tests.server import wait_until

KILLS: Final = int(os.environ.get("RUNSTREAM_KILLS", "500" if IS_LONG else "30"))
CLIENTS: Final = 6
SEED: Final = int(os.environ.get("RUNSTREAM_SEED", "7"))
MAX_FRAMES: Final = 60  # that a server gives to its clients before it is killed
EARLY: Final = 0.1  # of all endings come before it listens
DEPLOYS: Final = 0.2  # of all endings

NAMES: Final = [name for name, script in SCRIPTS.items() if not any(a.at or a.kind == "edit" for a in script.acts)]


class Crowd:
    """Clients that talk until they are told to stop; each conversation is a script on a new thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._random = random.Random(SEED)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._clients: list[Client] = []
        self.talks: list[Talk] = []

    @property
    def frame_count(self) -> int:
        """How many frames all clients have received."""
        with self._lock:
            return sum(len(received.texts) for client in self._clients for received in list(client.received))

    def receive(self, count: int) -> None:
        """Wait until they have received so many more."""
        enough = self.frame_count + count
        wait_until(lambda: self.frame_count >= enough, "clients get on", GIVE_UP_SECONDS)

    def stop(self) -> None:
        """Conversations that go on are brought to their end."""
        self._stopped.set()

    def talk(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                script, seed = SCRIPTS[self._random.choice(NAMES)], self._random.getrandbits(40)
                client = Client(self._url, script, seed)
                self._clients.append(client)
            is_whole = client.play()
            with self._lock:
                self.talks.append(Talk(script, client.thread_id, client.received, is_whole))


def kill_again_and_again(children: Nursery, folder: Path, proxy: RoughProxy, crowd: Crowd) -> None:
    """A server's age is counted in what its clients get of it: on a busy machine it would get nothing done."""
    chance, moment = random.Random(SEED), threading.Event()
    for number in range(1, KILLS + 1):
        waits = chance.random() > EARLY
        with children.serving(serving(folder, number), waits=waits) as served:
            if waits:
                proxy.port = served.port
                crowd.receive(chance.randrange(MAX_FRAMES))
            moment.wait(chance.random() * 0.1)
            number_of_signal = signal.SIGTERM if waits and chance.random() < DEPLOYS else signal.SIGKILL
            assert served.end(number_of_signal) in (0, -signal.SIGKILL), served.output


def serving(folder: Path, process: int) -> Serving:
    return Serving(
        data_dir=folder / "data",
        trace=folder / "trace",
        output=folder / f"output-{process}",
        process=process,
        env={"RUNSTREAM_SHUTDOWN_GRACE_SECONDS": "0.1", "RUNSTREAM_LOG_LEVEL": "warning"},
    )


@pytest.mark.timeout(0 if IS_LONG else 240)
def test_random_kills_and_cuts_lose_nothing_and_double_nothing(children: Nursery, tmp_path: Path) -> None:
    with RoughProxy(0, SEED) as proxy, ThreadPoolExecutor(CLIENTS) as pool:
        crowd = Crowd(proxy.url)
        talking = [pool.submit(crowd.talk) for _ in range(CLIENTS)]
        try:
            kill_again_and_again(children, tmp_path, proxy, crowd)
            with children.serving(serving(tmp_path, KILLS + 1)) as survivor:
                proxy.port = survivor.port
                crowd.stop()
                for talk in talking:
                    talk.result()
        finally:
            crowd.stop()
    assert sum(found.is_whole for found in crowd.talks) >= CLIENTS
    for found in crowd.talks:
        check_talk(tmp_path, found)
