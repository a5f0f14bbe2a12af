"""Where a trial runs: communication that cannot start is reported in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jepa_ray.training.runtime import Runtime, connect


def test_workers_that_cannot_communicate_say_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(Runtime())  # one worker exchanges nothing

    def refuse(*_: Any) -> None:
        raise torch.distributed.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:94, unhandled system error\nLast error:\nno socket")

    monkeypatch.setattr(torch.distributed, "all_reduce", refuse)
    with pytest.raises(RuntimeError) as raised:
        connect(Runtime(world_size=2))
    sentence = str(raised.value)
    assert sentence.startswith("gloo could not start: NCCL error in: ProcessGroupNCCL.cpp:94, unhandled system error; check that")
    assert sentence.endswith("or set resources.workers_per_trial=1") and "\n" not in sentence
