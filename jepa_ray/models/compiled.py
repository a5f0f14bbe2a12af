"""The backbone as one compiled graph, shared by all trials of a process.

Only the layers are compiled: embeddings, readouts, the head and the losses differ between trials (k, objective, loss dropout) and are few
kernels. So one graph, compiled once, serves every batch of every trial with the same architecture and adapters.

A graph that cannot be compiled is not an error: the step runs without it, the process says so once, and column `compiled` is false.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from jepa_ray.models.flex import FlexLayout

BACKEND = "inductor"
"""Compiler of the graph. Tests use one that needs no C++ compiler."""
CompileError = TorchDynamoException
"""What torch raises if it cannot compile a graph or a kernel."""
GRAPHS = 64
"""Graphs per process at most: trials that differ in the adapters' rank or dropout, or in the model, need one each. torch's limit is 8."""


def backbone(base: Any, embedded_RTD: Tensor, position_ids_RT: Tensor, layout: Any, cache: Any = None) -> Tensor:
    """(R, T, D) last hidden states of a Transformers backbone.

    `layout`: of a packed row; None: the model's own causal attention. `cache`: collects the layers' keys and values.
    """
    states_RTD: Tensor = base(
        inputs_embeds=embedded_RTD,
        position_ids=position_ids_RT,
        use_cache=cache is not None,
        past_key_values=cache,
        **({} if layout is None else {"layout": layout}),
    ).last_hidden_state
    return states_RTD


def compiled_backbone(base: Any, embedded_RTD: Tensor, position_ids_RT: Tensor, layout: Any) -> Tensor:
    """`backbone`, compiled at its first call. CompileError if that is impossible, or if the process has too many graphs already.

    `layout`: a FlexLayout, the only one whose shapes are the same in every batch but for the row's length.
    """
    assert isinstance(layout, FlexLayout)
    torch._dynamo.maybe_mark_dynamic(embedded_RTD, 1)
    torch._dynamo.maybe_mark_dynamic(position_ids_RT, 1)
    for tensor, dims in layout.lengths():
        for dim in dims:
            torch._dynamo.maybe_mark_dynamic(tensor, dim)
    try:
        return _graph(BACKEND)(base, embedded_RTD, position_ids_RT, layout)
    except FailOnRecompileLimitHit as error:  # no TorchDynamoException
        raise CompileError(f"the process has {GRAPHS} graphs already") from error


@functools.cache
def _graph(compiler: str) -> Callable[..., Tensor]:
    compile: Any = torch.compile  # its overloads lack `recompile_limit`
    graph: Callable[..., Tensor] = compile(backbone, fullgraph=True, backend=compiler, recompile_limit=GRAPHS)
    return graph


@functools.cache
def tell_once(sentence: str) -> None:
    """Warn, once per process."""
    warnings.warn(sentence, RuntimeWarning, stacklevel=2)
