"""Transports heartbeats from the working processes to the console: a thread sends them, the console requests the latest.

Neither side waits for the other. A message that cannot be sent is dropped: monitoring never slows a trial or makes it fail.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray

from jepa_ray.system.heartbeat import HEARTBEAT, Beat

EVERY_S = 2.0
"""Seconds between two heartbeats of a process."""


@contextmanager
def sending(mailbox: Any, name: str, phase: str = "start", every_s: float = EVERY_S) -> Iterator[None]:
    """Within the block, send this process's heartbeat to the Mailbox actor `mailbox` as `name`, at once and every `every_s` seconds."""
    HEARTBEAT.start(phase)
    ended = threading.Event()

    def send() -> None:
        with contextlib.suppress(Exception):  # an error in Ray must not disturb the work, and the next beat may succeed
            mailbox.beat.remote(name, HEARTBEAT.beat(), time.time())  # the reference is dropped, as nobody waits for an answer

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
        thread.join(5)  # so that no earlier beat arrives last; bounded, because Ray may be shutting down
        send()


class Beats:
    """The latest heartbeats, without ever waiting: one request is pending at a time, and its answer is read once it has arrived."""

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
        except Exception:  # the mailbox is restarting or Ray is shutting down; keep the latest heartbeats
            self._request = None
        return self._latest
