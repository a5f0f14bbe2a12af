"""The record of any causal language model, family `auto`, found from its checkpoint: config, tokenizer and chat template.

Nothing is looked up by name. The template is rendered with marked contents and the results are compared; the tokenizer's own additions are
those that appear when it encodes a text; the network's facts come from its modules (`structure.py`). What cannot be found is refused in one
sentence. Whether the record is right is decided by the checks (`python -m jepa_ray.conformance`), of which those of the text also run
before anything is trained.

    end of turn    the first special token after the answer
    BOS            the tokenizer's, if the template begins with it or the tokenizer puts it in front of every text; otherwise none
    system role    whether a system message is shown; if not, it is put before the user's text
    answer's lead  a space between the prompt for an answer and the answer (Llama 2), which belongs to the answer's first token
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_ray.config import ModelConfig
from jepa_ray.data.chat_template import fault_of, render
from jepa_ray.models.families import AUTO, DAY, PINNED_DAY, PLAIN_TEMPLATE, ModelFamily, get_family
from jepa_ray.models.loading import load_config, load_tokenizer
from jepa_ray.models.structure import Structure, structure_of, without_weights

SYSTEM, TEXT, ANSWER = ("\u241fsystem\u241f", "\u241ftext\u241f", "\u241fanswer\u241f")
"""Contents that no template contains."""
_OTHER = "add another chat_template.jinja to the checkpoint's folder, or name a family"
_SWITCHES: dict[str, Any] = {"date_string": DAY, "enable_thinking": False}
"""Variables of templates that change the text, and the values that all renderings give them."""


def family_of(model: ModelConfig, checkpoint: str, revision: str | None = None) -> ModelFamily:
    """The record of a checkpoint's family: of the table, or for `auto` found from the checkpoint (once per checkpoint and revision).

    ValueError with one sentence if the family is unknown, or the checkpoint cannot be used.
    """
    if model.family != AUTO:
        return get_family(model.family)
    folder = Path(checkpoint)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    state = tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.is_file())
    return _derived(checkpoint, revision, model.trust_remote_code, state)


@functools.lru_cache(maxsize=32)
def _derived(checkpoint: str, revision: str | None, trust_remote_code: bool, state: Any) -> ModelFamily:
    model = ModelConfig(family=AUTO, model=checkpoint, trust_remote_code=trust_remote_code)
    config, tokenizer = load_config(checkpoint, model, revision), load_tokenizer(checkpoint, model, revision)
    return derive(tokenizer, config, checkpoint, structure_of(without_weights(config, trust_remote_code), checkpoint))


def derive(tokenizer: Any, config: Any, checkpoint: str, structure: Structure) -> ModelFamily:
    """The record of a checkpoint, from its tokenizer (as `load_tokenizer` returns it), config and network.

    ValueError with one sentence if the template cannot be used.
    """
    template = tokenizer.get_chat_template()
    chat = _Chat(tokenizer, {name: value for name, value in _SWITCHES.items() if name in template}, checkpoint)
    if fault := fault_of(tokenizer, chat.switches):
        raise ValueError(f"the chat template of {checkpoint} {fault}; {_OTHER}")
    before, after = chat.around_answer()
    turn_end = chat.turn_end(after)
    bos, bos_from = chat.bos()
    system_role, refusal = chat.shows_system()
    pad, pad_from = _pad(tokenizer, turn_end)
    lead = chat.answer_lead(before)
    default = chat.default_system() if system_role else ""
    facts = [
        "the plain template of jepa_ray, since it contains none (usual for a base model)"
        if template == PLAIN_TEMPLATE
        else "its own template" + "".join(f", {what}" for what in chat.fixed(template)),
        f"BOS {bos!r}, once, {bos_from}" if bos is not None else "no BOS",
        f"end of turn {turn_end!r}",
        "system messages as the template shows them" if system_role else f"system messages put before the user's text{refusal}",
        *([f"the template's default system message ({_short(default)}) in both views"] if default else []),
        *(["a space before each answer, trained with it"] if lead else []),
        f"padding {pad!r}{pad_from}",
        f"no adapters: {structure.no_adapters_because}" if structure.no_adapters_because else f"adapters on {', '.join(structure.linear)}",
        f"padded rows (packing: plain): {structure.plain_because}" if structure.plain_because else "sequences share rows",
        *([f"at most {structure.max_positions} positions"] if structure.max_positions is not None else []),
    ]
    return ModelFamily(
        name=AUTO,
        model_type=config.model_type,
        paper_model=checkpoint,
        template=template,
        template_kwargs=chat.switches,
        system_role=system_role,
        bos=bos,
        turn_end=turn_end,
        pad=pad,
        lora_targets=structure.linear,
        tiny={},
        answer_lead=lead,
        plain_because=structure.plain_because,
        no_adapters_because=structure.no_adapters_because,
        max_positions=structure.max_positions,
        found=tuple(facts),
    )


def resolved(model: ModelConfig, plain_because: str | None) -> ModelConfig:
    """The model's configuration with `packing: auto` resolved to padded rows if sequences of its architecture cannot share rows.

    ValueError if the configuration requires what it cannot do.
    """
    if plain_because is None or model.packing == "plain":
        return model
    packed = {"packing": ("trie", "flat"), "attention": ("flex",), "compile": ("true",)}
    for key, values in packed.items():
        if (value := getattr(model, key)) in values:
            raise ValueError(f"base.model.{key}={value} is not supported for this model, because {plain_because}; set it to auto")
    return model.model_copy(update={"packing": "plain"})


def check_positions(family: ModelFamily, longest: int, longest_prompt: int, max_new_tokens: int) -> None:
    """ValueError if sequences, or prompts with their answers, have more tokens than the model has positions. All arguments in tokens."""
    limit = family.max_positions
    if limit is not None and longest > limit:
        raise ValueError(f"a sequence has {longest} tokens, but the model has only {limit} positions; lower data.max_length")
    if limit is not None and longest_prompt + max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {longest_prompt} tokens and an answer of {max_new_tokens} (max_new_tokens) need more than the {limit} positions "
            f"that the model has; lower base.evaluation.max_new_tokens or data.max_length"
        )


@dataclass(frozen=True)
class _Chat:
    """A tokenizer's chat template, rendered with marked contents."""

    tokenizer: Any
    switches: dict[str, Any]
    checkpoint: str

    def render(self, *turns: tuple[str, str], prompt: bool = False) -> str | None:
        """The text of (role, content) turns; None if the template refuses them. `prompt`: with the template's prompt for an answer."""
        try:
            return self.rendered(*turns, prompt=prompt)
        except ValueError:
            return None

    def rendered(self, *turns: tuple[str, str], prompt: bool = False) -> str:
        """The same; ValueError with the cause if the template refuses them."""
        messages = [{"role": role, "content": content} for role, content in turns]
        return render(self.tokenizer, messages, self.switches, prompt=prompt)

    def around_answer(self) -> tuple[str, str]:
        """The text before and after the answer to a question without a system message."""
        try:
            text = self.rendered(("user", TEXT), ("assistant", ANSWER))
        except ValueError as error:
            raise ValueError(f"the chat template of {self.checkpoint} refuses a question and its answer ({error}); {_OTHER}") from error
        before, shown, after = text.rpartition(ANSWER)
        if not shown or TEXT not in before:
            raise ValueError(f"the chat template of {self.checkpoint} does not show a question and its answer; {_OTHER}")
        return before, after

    def turn_end(self, after: str) -> str:
        """The first special token in the text after the answer: of several that begin there, the longest."""
        special = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special and str(token)}
        places = [(after.index(token), -len(token), token) for token in special if token in after]
        if not places:
            raise ValueError(
                f"the chat template of {self.checkpoint} puts no special token of the tokenizer after the answer, only {after[:40]!r}, so "
                f"nothing would stop generation; add its end of turn to the tokenizer as a special token, or {_OTHER}"
            )
        return min(places)[2]

    def bos(self) -> tuple[str | None, str]:
        """The token that every sequence begins with, if there is one, and who puts it there."""
        bare, whole = (self.tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        added: list[int] = next((whole[:at] for at in range(len(whole)) if whole[at : at + len(bare)] == bare), [])
        own = self.tokenizer.convert_ids_to_tokens(added[:1])
        before, _, between = self.around_answer()[0].partition(TEXT)
        for token in (self.tokenizer.bos_token, *own):
            if token and before.startswith(token) and token not in between:  # SmolLM 2's own is the beginning of every turn
                return token, "by the template"
        return (own[0], "by the tokenizer") if own else (None, "")

    def shows_system(self) -> tuple[bool, str]:
        """Whether the template shows a system message; if it raises an error instead, which one, in words."""
        try:
            text = self.rendered(("system", SYSTEM), ("user", TEXT), ("assistant", ANSWER))
        except ValueError as error:
            return False, f" (the template refuses them: {error})"
        return SYSTEM in text and ANSWER in text, ""

    def answer_lead(self, before: str) -> str:
        """The spaces by which the text before an answer is longer than the template's own prompt for one."""
        prompt = self.render(("user", TEXT), prompt=True) or ""
        rest = before.removeprefix(prompt)
        return rest if prompt and before.startswith(prompt) and not rest.strip(" ") else ""

    def default_system(self) -> str:
        """The text that the template puts in the place of a system message that is missing; empty if there is none."""
        text, alone = self.render(("system", SYSTEM), ("user", TEXT)), self.render(("user", TEXT))
        if text is None or alone is None:
            return ""
        head, _, rest = text.partition(SYSTEM)
        prefix, between = alone.partition(TEXT)[0], rest.partition(TEXT)[0]
        framed = prefix.startswith(head) and prefix.endswith(between) and len(prefix) >= len(head) + len(between)
        return prefix[len(head) : len(prefix) - len(between)].strip() if framed else ""

    def fixed(self, template: str) -> list[str]:
        """What is switched in the template, in words."""
        out = [f"its date fixed to {DAY}"] if template.startswith(PINNED_DAY) or "date_string" in self.switches else []
        return [*out, *(["thinking switched off"] if "enable_thinking" in self.switches else [])]


def _pad(tokenizer: Any, turn_end: str) -> tuple[str, str]:
    """A token that fills rows, never the end of turn, and where it comes from. It is masked everywhere, so any other token will do."""
    own = tokenizer.pad_token
    if own and own != turn_end:
        return own, ""
    number = 0 if tokenizer.convert_tokens_to_ids(turn_end) != 0 else 1
    why = "its own is the end of turn" if own else "it has none of its own"
    return str(tokenizer.convert_ids_to_tokens(number)), f" ({why}; padding is masked)"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else line[:57] + "...")
