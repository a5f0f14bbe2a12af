"""The hub's reachability: found out once, within seconds, and the client goes by it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from jepa_ray.system import hub


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A client that may use the network; the list gets the addresses that are asked."""
    asked: list[str] = []
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)
    hub.local_only_if_unreachable.cache_clear()
    yield asked
    hub.local_only_if_unreachable.cache_clear()


def test_a_listening_server_answers_and_a_closed_port_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert hub.answers(f"http://127.0.0.1:{port}")
    assert not hub.answers(f"http://127.0.0.1:{port}")


def test_a_lookup_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    forever = threading.Event()

    def hangs(*args: object) -> None:
        forever.wait()
        raise OSError

    monkeypatch.setattr(socket, "create_connection", hangs)
    try:
        assert not hub.answers("https://hub.invalid", seconds=0.05)
    finally:
        forever.set()


@pytest.mark.parametrize("answers", [True, False])
def test_the_client_uses_its_cache_only_if_the_hub_does_not_answer(
    online: list[str], monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(hub, "answers", lambda url: bool(online.append(url)) or answers)
    hub.local_only_if_unreachable()
    hub.local_only_if_unreachable()
    assert online == [constants.ENDPOINT], "asked once per process"
    assert answers != constants.HF_HUB_OFFLINE


def test_a_proxy_and_the_users_own_choice_are_left_alone(online: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "answers", lambda url: False)
    with monkeypatch.context() as patch:
        patch.setattr(hub, "getproxies", lambda: {"https": "http://proxy:3128"})
        hub.local_only_if_unreachable()
    hub.local_only_if_unreachable.cache_clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    hub.local_only_if_unreachable()
    assert not constants.HF_HUB_OFFLINE
