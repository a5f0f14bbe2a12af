"""The model card of a trained model: a README.md with the front matter of the hub. Facts in, Markdown out; reads nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

SENTINEL = "\u241fanswer\u241f"
"""Stands for the answer where the prompt is cut out of a rendered conversation."""
NO_VERDICT = "Nothing yet: the sweep writes its verdict here when it ends."
SCORES = ("accuracy", "exact", "prefix", "contains", "stopped", "ce")


def model_card(facts: Mapping[str, Any]) -> str:
    """The card. `facts` are those of `trial.json`; what the sweep has not added yet (arm, scores, verdict) is left out."""
    config, adapter = facts["config"], facts["adapter"]
    base, task = facts["base_name"], config["data"]["task"]
    name = facts.get("arm") or f"{config['model']['family']}, {task}"
    front = {
        # The hub takes any name for that of a model there, so a folder has none here.
        **({"base_model": base, "base_model_relation": "adapter" if adapter else "finetune"} if facts["hub"] else {}),
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["jepa_ray", *(["llm-jepa"] if config["objective"] is not None else []), *(["lora"] if config["lora"] else []), task],
    }
    what = ("LoRA adapters" if adapter else "a whole model, adapters merged in,") if config["lora"] else "a whole model"
    revision = f", revision `{facts['revision']}`" if facts["revision"] else ""
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {name}, seed {config['seed']}",
        f"{what[0].upper()}{what[1:]} on `{base}`{revision}, trained on the task `{task}` with seed {config['seed']} by jepa_ray "
        f"{facts['jepa_ray']}. {_term(config['objective'])} {facts.get('why', '')}".rstrip(),
        *_first_stage(facts),
        *_verdict(facts),
        "## Load it",
        *_elsewhere(facts),
        f"```python\n{loading(facts)}\n```",
        "## Ask it",
        "The prompt is the one that it was trained and scored with.",
        f"```python\n{asking(facts)}\n```",
        *_scores(facts),
        *facts.get("notes_on_scores", []),
        *_data(facts),
        *_predictor(facts),
        "## Configuration",
        f"```yaml\n{yaml.safe_dump(config, sort_keys=False, allow_unicode=True)}```",
        "## Licence",
        _licence(facts),
    ]
    return "\n\n".join(parts) + "\n"


def loading(facts: Mapping[str, Any]) -> str:
    """Python that loads tokenizer and model from the current folder, with Transformers and PEFT alone."""
    imports = ["from peft import PeftModel"] if facts["adapter"] else []
    imports.append("from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast")
    if facts.get("model_type") == "openelm":
        imports += ["", "import jepa_ray.models.openelm  # Transformers lacks this architecture"]
    more = f', dtype="{facts["dtype"]}"' + (", trust_remote_code=True" if facts["config"]["model"]["trust_remote_code"] else "")
    lines = ['tokenizer = PreTrainedTokenizerFast.from_pretrained(".")']
    if facts["adapter"]:
        revision = f', revision="{facts["revision"]}"' if facts["revision"] else ""
        lines.append(f"model = AutoModelForCausalLM.from_pretrained({json.dumps(facts['base'])}{revision}{more})")
        lines.append('model = PeftModel.from_pretrained(model, ".")')
    else:
        lines.append(f'model = AutoModelForCausalLM.from_pretrained("."{more})')
    return "\n".join([*imports, "", *lines])


def asking(facts: Mapping[str, Any]) -> str:
    """Python that defines `answer(messages)`, the greedy answer to a conversation, and calls it."""
    prompt = facts["prompt"]
    arguments = "".join(f", {name}={value!r}" for name, value in prompt["template_kwargs"].items())
    if prompt["own"]:
        lines = [f"prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True{arguments})"]
    else:
        lines = [
            f'shown = [*messages, {{"role": "assistant", "content": {SENTINEL!r}}}]',
            f"prompt = tokenizer.apply_chat_template(shown, tokenize=False{arguments}).rpartition({SENTINEL!r})[0]",
        ]
    front = f"{prompt['front']!r} + " if prompt["front"] else ""
    lines += [
        f'ids = tokenizer({front}prompt, add_special_tokens=False, return_tensors="pt").input_ids.to(model.device)',
        f"end = tokenizer.convert_tokens_to_ids({prompt['turn_end']!r})",
        "written = model.generate(",
        "    input_ids=ids, attention_mask=ids.new_ones(ids.shape), do_sample=False,",
        f"    max_new_tokens={prompt['max_new_tokens']}, eos_token_id=end, pad_token_id=end,",
        ")",
        "return tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False)",
    ]
    body = "\n".join(f"    {line}" for line in lines)
    system, question = prompt.get("system") or "...", "..."
    turns = [("system", system), ("user", question)] if prompt["system_role"] else [("user", f"{system}\n\n{question}")]
    messages = "\n".join(f'    {{"role": "{role}", "content": {json.dumps(text, ensure_ascii=False)}}},' for role, text in turns)
    return f"def answer(messages):\n{body}\n\n\nmessages = [\n{messages}\n]\nprint(answer(messages))"


def _term(objective: Mapping[str, Any] | None) -> str:
    if objective is None:
        return "Plain next-token fine-tuning, without a JEPA term."
    weight = objective["lambda"] if objective["lambda_effective"] is None else f"effective {objective['lambda_effective']}"
    if isinstance(weight, dict):
        weight = f"at the gradient ratio {weight['grad_ratio']}"
    return f"With a JEPA term: distance {objective['distance']}, lambda {weight}, k = {objective['k']}."


def _first_stage(facts: Mapping[str, Any]) -> list[str]:
    """Adapters are kept after a first stage by earlier versions only."""
    if not facts.get("first_stage") and not facts["config"]["pretrain"]:
        return []
    before = f"Before, a first stage trained the whole network on data of its own (see the configuration), from `{facts['base_name']}`."
    if facts["adapter"]:
        return [f"{before} These adapters belong to its result, a temporary checkpoint: `{facts['base']}`."]
    return [f"{before} These weights contain both stages."]


def _verdict(facts: Mapping[str, Any]) -> list[str]:
    """How the arm compares with its baseline; for a baseline, how the others compare with it."""
    verdict = facts.get("verdict")
    if facts.get("kind") == "baseline":
        return ["## How the other arms compare", _list(verdict)] if verdict else []
    return ["## Better than its baseline?", _list(verdict or [NO_VERDICT])]


def _elsewhere(facts: Mapping[str, Any]) -> list[str]:
    if not facts["adapter"] or not facts["local"]:
        return []
    return [
        "The base is a folder of the machine that trained these adapters. To load them elsewhere, export them merged into it: "
        "`python -m jepa_ray.export RESULTS --arm ARM --merge --to FOLDER`."
    ]


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line.strip()}" for line in lines)


def _scores(facts: Mapping[str, Any]) -> list[str]:
    scores = facts.get("scores")
    if not scores:
        return []
    measured = [name for name in SCORES if any(scores.get(f"{split}_{name}") is not None for split in ("val", "test"))]
    rows = [f"| split | {' | '.join(measured)} |", f"|---|{'---|' * len(measured)}"]
    for split, shown in (("val", "validation"), ("test", "test")):
        values = [scores.get(f"{split}_{name}") for name in measured]
        rows.append(f"| {shown} | {' | '.join('-' if value is None else f'{value:.4f}' for value in values)} |")
    return ["## Scores", "\n".join(rows), "Shares of the answers, except for ce: cross-entropy in nats per label."]


def _data(facts: Mapping[str, Any]) -> list[str]:
    if "dataset_sha" not in facts:
        return []
    data, sizes = facts["config"]["data"], facts.get("sizes", {})
    sources = [f"{name}: `{data[name] or 'generated'}`, {sizes.get(name)} examples" for name in ("train", "test")]
    return [
        "## Data",
        _list([*sources, f"validation: {sizes.get('val')} examples of the training data", f"SHA-256: `{facts['dataset_sha']}`"]),
    ]


def _predictor(facts: Mapping[str, Any]) -> list[str]:
    if not facts.get("predictor"):
        return []
    return ["## Predictor", f"`{facts['predictor']['file']}`: {facts['predictor']['use']} Generation does not need it."]


def _licence(facts: Mapping[str, Any]) -> str:
    base = facts["base_name"]
    if base == "tiny":
        return "The base is the built-in tiny model of jepa_ray (Apache-2.0), trained from random weights on the data of the task."
    where = f" (https://huggingface.co/{base})" if facts["hub"] else ""
    return f"These weights derive from `{base}`: its licence applies{where}. The licence of the data may apply, too."
