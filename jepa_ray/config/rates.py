"""Learning rates of pretrained models: the default of adapters, and the range that is usual for either way of training.

The values are those of common practice: the paper trains whole models at 1e-5 to 8e-5, and LoRA is used at about ten times the rate of full
fine-tuning (Hu et al. 2021, arXiv 2106.09685, appendix D: 2e-4).
"""

from __future__ import annotations

from typing import Any

from jepa_ray.config.record import is_none

ADAPTER_RATE = 2e-4
"""Ten times the default of full fine-tuning (`OptimConfig.learning_rate`)."""
USUAL = {"full": (1e-6, 2e-4), "lora": (1e-5, 2e-3)}
"""Learning rates at which pretrained models are trained. The built-in tiny models need higher ones."""


def pretrained(tree: dict[str, Any]) -> bool:
    """Whether a sweep starts from a pretrained causal model in every family: not `tiny`, and not from random weights."""
    return "tiny" not in _models(tree) and _from_weights(tree)


def mixed(tree: dict[str, Any]) -> bool:
    """Whether some families of a sweep start from a pretrained causal model, and others from a tiny one. One rate trains them all."""
    models = _models(tree)
    return "tiny" in models and any(model != "tiny" for model in models) and _from_weights(tree)


def _models(tree: dict[str, Any]) -> list[Any]:
    model = tree.get("model", "tiny")
    return list(model.values()) if isinstance(model, dict) else [model]


def _from_weights(tree: dict[str, Any]) -> bool:
    """Whether causal models start from weights, not from random ones."""
    base = tree.get("base") or {}
    network = base.get("model") if isinstance(base, dict) else None
    random = isinstance(network, dict) and network.get("init") == "random"
    return not random and is_none(base.get("masked") if isinstance(base, dict) else None)


def with_adapter_rate(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of a sweep file with `base.optim.learning_rate`, if it leaves that out and trains adapters of a pretrained model."""
    base = tree.get("base")
    if not isinstance(base, dict) or is_none(base.get("lora")) or not pretrained(tree):
        return tree
    optim = base.get("optim", {})
    if not isinstance(optim, dict) or "learning_rate" in optim:
        return tree
    return {**tree, "base": {**base, "optim": {"learning_rate": ADAPTER_RATE, **optim}}}
