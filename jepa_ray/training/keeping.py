"""Saves the trained model at the end of a confirmed trial, as plain Transformers and PEFT read it, completely or not at all.

    adapter_model.safetensors, adapter_config.json   LoRA: the adapters, by PEFT
    model.safetensors, config.json                   full training, and LoRA after a first stage: the model in the dtype that it computes in
    tokenizer.json, chat_template.jinja, ...         the tokenizer, with the template that the prompts were rendered with
    predictor.safetensors                            predictor tokens and head, if there are any; the metadata says how to use them
    trial.json                                       the facts from which the model card is written (`results/model_card.py`)

A model that cannot be saved (a full disk) does not make the trial fail: its column `model_error` says why.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from jepa_ray.config import ObjectiveConfig, TrialConfig, canonical
from jepa_ray.data.chat_template import render
from jepa_ray.data.datasets import task_of
from jepa_ray.data.views import Renderer, TokenTable
from jepa_ray.models.auto import family_of
from jepa_ray.models.families import ModelFamily
from jepa_ray.models.merging import merged
from jepa_ray.models.network import Network
from jepa_ray.results import FACTS
from jepa_ray.results.model_card import SENTINEL
from jepa_ray.system import atomic
from jepa_ray.system.digests import weights_sha
from jepa_ray.system.version import __version__
from jepa_ray.training.jepa_term import active_objective
from jepa_ray.training.prepared import Prepared
from jepa_ray.training.state import TrainState

PREDICTOR = "predictor.safetensors"
USE = {
    "append": "after the last token of the Text view; the state of the last predictor token predicts the Code view",
    "prepend": "in front of the Text view, whose last state predicts the Code view",
    "reverse": "after the last token of the Code view; the state of the last predictor token predicts the Text view",
    "shared_prefix": "after the last token of the prompt; the state of the last predictor token predicts the Code view",
}
"""Where predictor tokens go, by layout."""


def keep_model(state: TrainState, tokenizer: Any, prepared: Prepared, config: TrialConfig) -> str | None:
    """Write the trained model to `Runtime.keep`, if that is set; rank 0 writes, and every rank calls this. `config`: the trial's own.

    Returns why it could not be saved; None if it was, and on the other ranks.
    """
    runtime = state.runtime
    if runtime.keep is None:
        return None
    with state.gathered() as network:
        if runtime.rank != 0:
            return None
        if network.lm is not network.causal_lm and config.model.init == "random" and prepared.first_stage is None:
            return "the adapters belong to random weights (base.model.init=random), which are stored nowhere"
        try:
            with atomic.whole_folder(runtime.keep, replace=True) as building:
                save_model(building, network, tokenizer, prepared, config, runtime.keep.name)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # a library's own sentence about a full disk, too
            return " ".join(f"{error}".split()) or type(error).__name__
    return None


def save_model(folder: Path, network: Network, tokenizer: Any, prepared: Prepared, config: TrialConfig, trial_id: str) -> None:
    """Write a trained network with its tokenizer and facts to an existing folder. Raises what the libraries raise."""
    lm, causal_lm = network.lm, network.causal_lm
    if lm is not causal_lm:
        adapters = lm.peft_config["default"]
        adapters.base_model_name_or_path, adapters.revision = base_of(prepared), prepared.revision
        lm.save_pretrained(folder, save_embedding_layers=False)
        if prepared.first_stage is not None:
            _merge(folder, prepared, config, dtype_of(network))
    else:
        cached, causal_lm.config.use_cache = causal_lm.config.use_cache, True  # off in training only
        try:
            causal_lm.save_pretrained(folder)
        finally:
            causal_lm.config.use_cache = cached
    tokenizer.save_pretrained(folder)
    objective = active_objective(config)
    if predictor := predictor_weights(network):
        save_file(
            predictor, folder / PREDICTOR, metadata={"k": str(objective.k if objective else 0), "use": predictor_use(network, objective)}
        )
    facts = facts_of(network, tokenizer, prepared, config) | {"trial_id": trial_id}
    (folder / FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _merge(folder: Path, prepared: Prepared, config: TrialConfig, dtype: str) -> None:
    """Put the whole model in the place of the adapters in a folder: their base is the first stage's checkpoint, which is temporary."""
    trusted = config.model.trust_remote_code
    merged(prepared.checkpoint, prepared.revision, folder, dtype=dtype, trust_remote_code=trusted).save_pretrained(folder)
    for path in folder.glob("adapter_*"):
        path.unlink()


def base_of(prepared: Prepared) -> str:
    """Hub id of the checkpoint that training started from, or its folder, which then is absolute: the model may be loaded from anywhere."""
    folder = Path(prepared.checkpoint)
    return str(folder.resolve()) if folder.is_dir() else prepared.checkpoint


def dtype_of(network: Network) -> str:
    """In which the model computes, as PyTorch names it: `bfloat16`."""
    return str(network.causal_lm.get_input_embeddings().weight.dtype).removeprefix("torch.")


def predictor_weights(network: Network) -> dict[str, Tensor]:
    """`predictor_tokens` (k, D) and the weights of the head as `head.*`; empty without a JEPA term's own parameters."""
    tensors = {} if network.predictor is None else {"predictor_tokens": network.predictor}
    if network.head is not None:
        tensors |= {f"head.{name}": value for name, value in network.head.state_dict().items()}
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def predictor_use(network: Network, objective: ObjectiveConfig | None) -> str:
    """How to use the tensors of PREDICTOR, in words."""
    parts = []
    if network.predictor is not None and objective is not None:
        scale = getattr(network.causal_lm.get_input_embeddings(), "embed_scale", None)
        scaled = f", each multiplied by {float(scale):g} as the model multiplies its own embeddings" if scale is not None else ""
        place = USE.get(objective.layout, "where the layout puts them")
        parts.append(f"predictor_tokens (k, width) are embeddings, no rows of the vocabulary{scaled}. They go {place}.")
    if network.head is not None and objective is not None:
        parts.append(f"head.* are the weights of the {objective.predictor} predictor, which maps the source state.")
    return " ".join(parts)


def facts_of(network: Network, tokenizer: Any, prepared: Prepared, config: TrialConfig) -> dict[str, Any]:
    """Everything that the trial knows of its model, as plain JSON. The sweep adds arm, scores and verdict."""
    family = family_of(config.model, prepared.checkpoint, prepared.revision)
    asked = family.paper_model if config.model.model == "paper" else config.model.model
    folder = asked != "tiny" and Path(asked).is_dir()
    predictor = {"file": PREDICTOR, "use": predictor_use(network, active_objective(config))} if predictor_weights(network) else None
    return {
        "jepa_ray": __version__,
        "model_type": family.model_type,
        "base": base_of(prepared),
        "revision": prepared.revision,
        "base_sha": weights_sha(prepared.checkpoint, prepared.revision),
        "local": Path(prepared.checkpoint).is_dir(),
        "base_name": str(Path(asked).resolve()) if folder else asked,
        "hub": asked != "tiny" and not folder,
        "first_stage": prepared.first_stage is not None,
        "adapter": network.lm is not network.causal_lm and prepared.first_stage is None,
        "dtype": dtype_of(network),
        "predictor": predictor,
        "prompt": {
            **rendering(tokenizer, family),
            "template_kwargs": dict(family.template_kwargs),
            "turn_end": family.turn_end,
            "system_role": family.system_role,
            "system": system_of(tokenizer, family, prepared.train),
            "max_new_tokens": config.evaluation.max_new_tokens or task_of(config.data).max_new_tokens,
        },
        "config": canonical(config),
    }


def rendering(tokenizer: Any, family: ModelFamily) -> dict[str, Any]:
    """How `apply_chat_template` alone renders the prompts of training.

    own: by the template's own generation prompt; otherwise what is in front of an answer is cut out of a rendered conversation. front:
    text to put before either. ValueError if neither gives the prompt.
    """
    expected = Renderer(tokenizer, family).prompt_and_answer("system", "question", "answer")[0]
    messages = [{"role": "system", "content": "system"}, {"role": "user", "content": "question"}]
    if not family.system_role:
        messages = [{"role": "user", "content": "system\n\nquestion"}]
    try:
        own = render(tokenizer, messages, family.template_kwargs, prompt=True)
    except ValueError:  # some templates only render a conversation
        own = ""
    cut = render(tokenizer, [*messages, {"role": "assistant", "content": SENTINEL}], family.template_kwargs).rpartition(SENTINEL)[0]
    for rendered, name in ((own, True), (cut, False)):
        for front in ("", family.bos or ""):
            if front + rendered == expected:
                return {"own": name, "front": front}
    raise ValueError(f"the chat template of family {family.name} does not render its prompts without jepa_ray")


def system_of(tokenizer: Any, family: ModelFamily, table: TokenTable) -> str | None:
    """The system message of all prompts, read back from the tokens of the first and the last; None if they differ or have none."""
    marks = ("\u241fsystem\u241f", "\u241fquestion\u241f")
    before, _, rest = Renderer(tokenizer, family).prompt_and_answer(*marks, "answer")[0].partition(marks[0])
    between, _, after = rest.partition(marks[1])
    found = set()
    for row in (0, len(table) - 1):
        ids = table.prompt(row).tolist()
        prompt: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        end = between + table.questions[row].strip() + after
        system = prompt[len(before) : len(prompt) - len(end)]
        if before + system + end != prompt or tokenizer(prompt, add_special_tokens=False)["input_ids"] != ids:
            return None
        found.add(system)
    return found.pop() if len(found) == 1 else None
