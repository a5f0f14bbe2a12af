"""Heartbeats on their way from the processes that work to the console: a thread sends them, the console asks for the latest.

Neither side waits for the other. A message that cannot be sent is dropped: a trial is never slowed or failed by being watched.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray

from jepa_ray.system.heartbeat import HEARTBEAT, Beat

EVERY_S = 2.0
"""Between two heartbeats of a process."""


@contextmanager
def sending(mailbox: Any, name: str, phase: str = "start", every_s: float = EVERY_S) -> Iterator[None]:
    """While inside, this process's heartbeat goes to the Mailbox actor `mailbox` under `name`, at once and every `every_s` seconds."""
    HEARTBEAT.start(phase)
    ended = threading.Event()

    def send() -> None:
        with contextlib.suppress(Exception):  # whatever Ray has against it: the work must not suffer, and the next beat may get through
            mailbox.beat.remote(name, HEARTBEAT.beat())  # the reference is dropped: nobody waits for an answer

    def work() -> None:
        while not ended.wait(every_s):
            send()

    thread = threading.Thread(target=work, daemon=True, name="heartbeat")
    send()
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)  # or a beat of before could come last; bounded, as Ray may be on its way out
        send()


class Beats:
    """The latest heartbeats, without ever waiting: one request is under way at a time, its answer is taken when it has come."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox, self._request = mailbox, None
        self._latest: dict[str, Beat] = {}

    def __call__(self) -> Mapping[str, Beat]:
        """Name (trial id, or family and task) -> its latest heartbeat."""
        if not ray.is_initialized():  # Ray would start a new cluster to answer
            return self._latest
        try:
            if self._request is not None and ray.wait([self._request], timeout=0)[0]:
                answer, self._request = self._request, None
                self._latest = ray.get(answer)
            if self._request is None:
                self._request = self._mailbox.beats.remote()
        except Exception:  # the mailbox is starting again, or Ray is shutting down: what is known stays on the screen
            self._request = None
        return self._latest
