"""Whether the Hugging Face hub can be reached. Its client retries for minutes where there is no network."""

from __future__ import annotations

import functools
import os
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies

SECONDS = 3.0
"""Within which the hub must accept a connection."""


@functools.cache
def local_only_if_unreachable() -> None:
    """If the hub does not answer, let its client use the local cache only, in this process. Tries once per process.

    Changes nothing if a proxy is set, through which the hub may be reachable, or if the user has decided (HF_HUB_OFFLINE).
    """
    from huggingface_hub import constants

    if os.environ.get("HF_HUB_OFFLINE") or getproxies() or answers(constants.ENDPOINT):
        return
    constants.HF_HUB_OFFLINE = True


def answers(url: str, seconds: float = SECONDS) -> bool:
    """Whether a server accepts connections within some seconds, the lookup of its name included."""
    parts = urlsplit(url)
    found = threading.Event()

    def connect() -> None:
        try:
            with socket.create_connection((parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)), seconds):
                found.set()
        except OSError:
            pass
        finally:
            done.set()

    done = threading.Event()
    threading.Thread(target=connect, daemon=True).start()  # a lookup has no time limit of its own
    done.wait(seconds)
    return found.is_set()
