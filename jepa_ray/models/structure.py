"""What the modules of a causal language model say about how it can be trained: linear layers, positions, and what packed rows rule out.

Found on the network itself, or on one without weights (torch's meta device, about a second), so that a plan stays quick. What an
architecture cannot do is one sentence here, before anything is trained. Whether the rest is exact is measured: by the start-up check
of every trial (`training/packing_check.py`), and by `python -m jepa_ray.conformance`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from jepa_ray.models.network import LAYERS, NORMS

_ATTENTION_DROPOUTS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob", "attn_dropout")
_SINKS = ("sinks", "s_aux")
_PACKED_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers (`layer_types` of a config) that packed attention computes."""
_POSITION_OFFSET = 8
"""Rows by which a table of positions may be larger than the number of positions: OPT's has two more."""


@dataclass(frozen=True)
class Structure:
    """Facts about a network's modules."""

    linear: tuple[str, ...]
    """Names of the linear layers, without embeddings and head: what gets adapters."""
    no_adapters_because: str | None
    """Why there can be no adapters, in words; None: there can."""
    plain_because: str | None
    """Why sequences cannot share rows, in words; None: they can."""
    max_positions: int | None
    """Positions of a model that looks them up in a table; None: they are computed."""

    def targets(self) -> tuple[str, ...]:
        """The layers that get adapters; ValueError if there can be none."""
        refuse_adapters(self.no_adapters_because)
        return self.linear


def refuse_adapters(because: str | None) -> None:
    """ValueError with the reason why a model cannot have adapters, if there is one."""
    if because is not None:
        raise ValueError(f"adapters are not supported: {because}; set base.lora=none to train the whole network")


def refuse(config: Any, checkpoint: str) -> None:
    """ValueError with one sentence if a config is not that of a causal language model of text whose weights can be trained."""
    kind, classes = config.model_type, tuple(config.architectures or ())
    remedy = "use a causal language model of text (AutoModelForCausalLM)"
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{checkpoint} is an encoder with a decoder ({kind}); {remedy}")
    if config.get_text_config() is not config:
        raise ValueError(f"{checkpoint} reads more than text ({kind}); use the checkpoint of its language model alone")
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"the weights of {checkpoint} are quantised, so they cannot be trained exactly; use the original weights")
    causal = "auto_map" in config.to_dict() or type(config) in AutoModelForCausalLM._model_mapping
    named = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind, ())
    known = {named} if isinstance(named, str) else set(named)
    other = [name for name in classes if name not in known and not name.endswith(("ForCausalLM", "LMHeadModel"))]
    if not causal or (other and len(other) == len(classes)):
        raise ValueError(f"{checkpoint} is no causal language model ({', '.join(classes) or kind}); {remedy}")


def without_weights(config: Any, trust_remote_code: bool = False) -> Any:
    """The network of a config on the meta device. ValueError if its values make no network."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        except Exception as error:  # odd values fail anywhere in the libraries
            first = (str(error).strip().splitlines() or [""])[0]
            name = getattr(config, "name_or_path", "") or "the checkpoint"
            raise ValueError(f"config.json of {name} describes no network ({type(error).__name__}: {first}); correct its values") from error


def structure_of(lm: Any, checkpoint: str = "this model") -> Structure:
    """The facts about a network. ValueError with one sentence if it cannot be trained here at all."""
    config, base = lm.config, lm.base_model
    _refuse_network(lm, base, checkpoint)
    linear = {name: module for name, module in base.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    others = sorted(_other_matrices(base, set(linear)))
    return Structure(
        linear=tuple(dict.fromkeys(_leaf(name) for name in linear)),
        no_adapters_because=(
            f"{len(others)} of the model's matrices, such as {others[0]}, are not linear layers (mixture of experts), and PEFT's "
            f"adapters of such tensors have no dropout"
            if others
            else None
        ),
        plain_because=_plain_because(lm, base),
        max_positions=config.max_position_embeddings if any(_position_tables(lm, base)) else None,
    )


def _leaf(name: str) -> str:
    """The last part of a module's name; the last two if it is a number, which would also name a decoder layer."""
    parts = name.split(".")
    return ".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:])


def _other_matrices(base: Any, linear: set[str]) -> Iterator[str]:
    for name, module in base.named_modules():
        if name not in linear and not isinstance(module, nn.Embedding):
            yield from (f"{name}.{leaf}" for leaf, parameter in module.named_parameters(recurse=False) if parameter.ndim >= 2)


def _position_tables(lm: Any, base: Any) -> Iterator[nn.Embedding]:
    """Embedding tables of positions, not of tokens."""
    positions = getattr(lm.config, "max_position_embeddings", None)
    for table in _further_tables(lm, base):
        if positions is not None and 0 <= table.num_embeddings - positions <= _POSITION_OFFSET:
            yield table


def _further_tables(lm: Any, base: Any) -> Iterator[nn.Embedding]:
    """Embedding tables other than that of the tokens."""
    yield from (module for module in base.modules() if isinstance(module, nn.Embedding) and module is not lm.get_input_embeddings())


def _refuse_network(lm: Any, base: Any, checkpoint: str) -> None:
    """ValueError if the network is not a stack of causal attention layers over one table of token embeddings, with one head."""
    remedy = "choose a model whose layers are causal attention"
    kind = f"{checkpoint} ({lm.config.model_type})"
    if getattr(lm, "_is_stateful", False):
        raise ValueError(f"{kind} has recurrent layers (state space or linear attention), which are not supported; {remedy}")
    if any(getattr(module, "is_causal", True) is False for module in base.modules()):
        raise ValueError(f"{kind} attends in both directions; {remedy}")
    accepted = inspect.signature(base.forward).parameters
    if missing := [name for name in ("inputs_embeds", "position_ids") if name not in accepted]:
        raise ValueError(f"the layers of {kind} do not accept {' and '.join(missing)}, which training needs; {remedy}")
    head, table = lm.get_output_embeddings(), lm.get_input_embeddings()
    parts = {"a head": head, "a table of token embeddings": table}
    parts |= {"a list of layers": _first(base, LAYERS), "a norm after its last layer": _first(base, NORMS)}
    if missing := [what for what, part in parts.items() if not isinstance(part, nn.Module)]:
        raise ValueError(f"{kind} has no {missing[0].split(' ', 1)[1]} under a known name, which training needs; {remedy}")
    if len(list(_further_tables(lm, base))) > len(list(_position_tables(lm, base))):
        raise ValueError(f"{kind} has further tables of embeddings, in which predictor tokens have no row; choose a model with one table")


def _first(base: Any, names: tuple[str, ...]) -> Any:
    return next((part for name in names if (part := getattr(base, name, None)) is not None), None)


def _plain_because(lm: Any, base: Any) -> str | None:
    config = lm.config
    if not getattr(lm, "_supports_attention_backend", False):
        return "its code does not accept another attention"
    if any(name.rpartition(".")[2] in _SINKS for name, _ in base.named_parameters()):
        return "its attention has sinks"
    for name in _ATTENTION_DROPOUTS:
        if (share := getattr(config, name, None) or 0.0) > 0:
            return f"its attention drops weights out in training ({name} = {share:g} in config.json; 0 would allow packing)"
    if kinds := sorted(set(getattr(config, "layer_types", None) or ()) - _PACKED_LAYERS):
        return f"it has layers of kind {', '.join(kinds)}"
    if getattr(config, "v_head_dim", None) is not None:
        return "its values have another size than its keys"
    return None
