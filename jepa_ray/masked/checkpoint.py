"""Files of a masked trial: its working checkpoint and, at the end, the final encoders, predictor and optimizer.

<folder>/context/                  Hugging Face folder of the trained masked-language model, with tokenizer
         target/                   Hugging Face folder of the target encoder                   (with a JEPA term only)
         predictor.safetensors     weights of the predictor                                    (with a JEPA term only)
         optimizer.pt              the optimizer's state, epoch and step; can be loaded with weights_only=True
         trial.json                the trial's configuration
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from jepa_ray.config import canonical
from jepa_ray.masked.network import MaskedNetwork
from jepa_ray.masked.step import MaskedState, TargetEncoder
from jepa_ray.system import atomic
from jepa_ray.training import checkpoint


def working_snapshot(network: MaskedNetwork, target: TargetEncoder | None, optimizer: torch.optim.Optimizer, **more: Any) -> dict[str, Any]:
    """CPU copies of everything needed to resume, for `training.checkpoint.write`."""
    averages = {name: parameter.detach() for name, parameter in target.encoder.named_parameters()} if target is not None else {}
    return checkpoint.snapshot(network, optimizer, target=averages, **more)


def load_working(
    scratch: Path, network: MaskedNetwork, target: TargetEncoder | None, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Load the last working checkpoint into all three and return everything else it contains; None if there is no checkpoint."""
    state = checkpoint.read(scratch, network.device)
    if state is None:
        return None
    with torch.no_grad():
        for module, key in ((network, "trained"), (target.encoder if target is not None else network, "target")):
            parameters = dict(module.named_parameters())
            for name, value in state.pop(key).items():
                parameters[name].copy_(value)
    optimizer.load_state_dict(state.pop("optimizer"))
    return state


def save_final(folder: Path, state: MaskedState, tokenizer: Any, **progress: int) -> None:
    """Write the folder described at the top of this module, completely or not at all. Replaces the folder of an earlier attempt."""
    network, target = state.network, state.target
    with atomic.whole_folder(folder, replace=True) as building:
        network.lm.save_pretrained(building / "context")
        tokenizer.save_pretrained(building / "context")
        if target is not None and network.predictor is not None:
            target.encoder.save_pretrained(building / "target")
            tokenizer.save_pretrained(building / "target")
            weights = {name: value.detach().cpu().contiguous() for name, value in network.predictor.state_dict().items()}
            save_file(weights, building / "predictor.safetensors")
        torch.save({"optimizer": state.optimizer.state_dict(), **progress}, building / "optimizer.pt")
        (building / "trial.json").write_text(json.dumps(canonical(state.config), indent=2) + "\n", encoding="utf-8")
