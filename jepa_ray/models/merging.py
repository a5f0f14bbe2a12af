"""Adapters merged into the weights of their base: a model that needs neither PEFT nor the base."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from jepa_ray.models.loading import from_hub


def merged(base: str, revision: str | None, adapters: Path, *, dtype: str, trust_remote_code: bool = False) -> Any:
    """The causal LM of a base (folder or hub id) with the LoRA adapters of a folder, added in fp32, then in `dtype` (`bfloat16`).

    ValueError with one sentence if the base or the adapters cannot be loaded, or do not belong together.
    """
    from peft import PeftModel

    logging.disable_progress_bar()
    load = AutoModelForCausalLM.from_pretrained
    lm = from_hub(load, base, revision, dtype=torch.float32, use_safetensors=True, trust_remote_code=trust_remote_code)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about PEFT's use of Transformers; users cannot act on it
        warnings.filterwarnings("error", "Found missing adapter keys")  # these adapters would stay at their initial values
        try:
            whole = PeftModel.from_pretrained(lm, str(adapters)).merge_and_unload().to(getattr(torch, dtype))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # PEFT raises whatever the files make it meet
            reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
            raise ValueError(
                f"the adapters in {adapters} cannot be added to {base} ({reason}); restore both as they were when the adapters were trained"
            ) from error
    whole.config.use_cache = True  # off in training only
    return whole
