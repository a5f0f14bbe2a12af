"""Checks of a checkpoint that run its network; the framework and the checks of its text are in `preparation/text_checks.py`.

Everything is computed in fp32 on a few examples, one network at a time and with one set of gradients, so that models with billions of
parameters fit on one GPU. Legend: N labels, D width.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_ray.config import LoraConfig, ObjectiveConfig, OptimConfig, TrialConfig
from jepa_ray.data.packing import PREDICTOR_BASE, Backend, make_batch
from jepa_ray.data.views import TokenTable
from jepa_ray.evaluation.generate import generate
from jepa_ray.models.loading import load_tokenizer, uses_bf16
from jepa_ray.models.network import Network
from jepa_ray.objectives.distances import DISTANCES
from jepa_ray.preparation.text_checks import PREDICTORS, TEXT_CHECKS, Check, Found, Skip, Subject, longer_than
from jepa_ray.training import checkpoint
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.optimizer import make_optimizer
from jepa_ray.training.packing_check import attention_error, check_head, separate_pass
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.state import TrainState
from jepa_ray.training.step import losses, train_step

LORA = LoraConfig(r=4, dropout=0.0)
ROWS = (0, 1, 2)
"""Examples of the expensive checks."""
TOLERANCE = 1e-3
"""Largest relative error of losses, gradients and logits in fp32 that passes as rounding."""
WORK_ON_CPU = 1e12
"""Parameters times tokens; above it (about half a minute), sequences longer than the sliding window are only checked on a GPU."""
_PLAIN = "set base.model.packing=plain for this model and report it"
_REPORT = "report this with the checkpoint's name and the output of this command"


def check_packing(subject: Subject) -> Found:
    """Packed rows give the same hidden states as separate passes, also beyond a sliding window."""
    network = subject.network(k=PREDICTORS)
    window = sliding_window(network.causal_lm.config)
    check_head(network, subject.table, bf16=False)
    worst, beyond = 0.0, ""
    tables = [(subject.table, 4)]
    if window is not None:
        work = window * sum(p.numel() for p in network.parameters())
        if subject.device.type == "cpu" and work > WORK_ON_CPU:
            beyond = f"; not beyond the sliding window of {window} tokens, which requires a GPU at this size"
        else:
            tables.append((longer_than(subject, window), 1))
            beyond = f"; also beyond the sliding window of {window} tokens"
    backends: tuple[Backend, ...] = ("trie", "flat") if subject.backend == "trie" else ("plain",)
    for table, examples in tables:
        alone: dict[bool, dict[bytes, Tensor]] = {False: {}, True: {}}  # by precision: all backends are compared with the same passes
        for backend in backends:
            settings: Any = {"k": PREDICTORS, "examples": examples}
            error = attention_error(network, table, backend, bf16=False, alone=alone[False], **settings)
            worst = max(worst, error)
            if uses_bf16(subject.model(precision="auto"), subject.device):
                attention_error(network, table, backend, bf16=True, alone=alone[True], **settings)
    how = " and ".join(backends) if subject.family.plain_because is None else f"plain only, because {subject.family.plain_because}"
    return Found(f"hidden states as in separate passes, {how}{beyond}", worst)


def sliding_window(config: Any) -> int | None:
    """Tokens that the narrowest layers attend back to; None if every layer attends to all."""
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    return None if kinds is not None and "sliding_attention" not in kinds else window


def check_gradients(subject: Subject) -> Found:
    """Packed rows give the same losses and gradients as separate passes: full and LoRA, with and without gradient checkpointing."""
    worst, table, beyond = 0.0, subject.table, ""
    for lora in (None, LORA) if subject.family.no_adapters_because is None else (None,):
        network = without_dropout(subject.network(lora, k=PREDICTORS, gradient_checkpointing=True).train())
        if (window := sliding_window(network.causal_lm.config)) is not None:
            near = window <= 512  # a backward pass over thousands of tokens is expensive
            table = longer_than(subject, window) if near else table
            beyond = f"; {'also' if near else 'not'} beyond the sliding window of {window} tokens"
        for recompute, error in gradient_errors(subject, network, table):
            how = f"{'LoRA' if lora else 'full'}, {'with' if recompute else 'without'} gradient checkpointing"
            if not error <= TOLERANCE:  # also fails for NaN
                raise ValueError(f"losses or gradients differ from separate passes by {error:.2g} ({how}); {_PLAIN}")
            worst = max(worst, error)
        del network
    kinds = "full, LoRA" if subject.family.no_adapters_because is None else "full"
    return Found(f"losses and gradients as in separate passes: {kinds}, with and without gradient checkpointing{beyond}", worst)


def without_dropout(network: Network) -> Network:
    """The network with all dropout switched off, which would differ between any two passes."""
    for module in network.modules():
        for name in ("attention_dropout", "dropout"):  # shares that attention passes on
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def gradient_errors(subject: Subject, network: Network, table: TokenTable) -> Iterator[tuple[bool, float]]:
    """Without and with gradient checkpointing: largest relative error of the two losses and of any trained tensor's gradient (norm of the
    difference over its norm). The network was loaded with gradient checkpointing.

    Tensors with a tiny gradient are measured relative to 1 % of the largest. There is one set of gradients, to which packed passes add and
    from which separate passes subtract: g1 - s after the first packed pass; then + g2 - g1, which leaves g2 - s and costs one more packed
    pass in place of all separate ones.
    """
    config = TrialConfig(model=subject.model(), objective=ObjectiveConfig(k=PREDICTORS))
    rows = [*ROWS[:-1], len(table) - 1]
    batch = make_batch(table, rows, backend=subject.backend, k=PREDICTORS)
    weights = 1 / batch.num_labels, 10 / batch.num_pairs  # large enough that an error of the JEPA term shows
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    checkpointed = [module for module in network.modules() if getattr(module, "gradient_checkpointing", False)]

    def packed(sign: int) -> tuple[float, float]:
        ce, jepa = losses(network, batch, config, subject.device)
        (sign * (weights[0] * ce + weights[1] * jepa)).backward()
        return float(ce.detach()), float(jepa.detach())

    def norms() -> dict[str, float]:
        return {name: float(p.grad.norm()) if p.grad is not None else 0.0 for name, p in trained.items()}

    def error(found: tuple[float, float]) -> float:
        relative = [abs(a - b) / abs(b) for a, b in zip(found, separate_losses, strict=True)]
        return float(np.max([*relative, *(difference / max(sizes[name], floor) for name, difference in norms().items())]))

    _set_checkpointing(checkpointed, False)
    first = packed(+1)
    sizes = norms()
    floor = 0.01 * max(sizes.values())
    separate_losses = [0.0, 0.0]
    for row in rows:
        terms = _separate_losses(network, table, row)
        (-weights[0] * terms[0] - weights[1] * terms[1]).backward()
        separate_losses = [total + float(term.detach()) for total, term in zip(separate_losses, terms, strict=True)]
    yield False, error(first)
    if not checkpointed:
        raise ValueError("the model ignores gradient checkpointing; do not set base.model.gradient_checkpointing")
    packed(-1)
    _set_checkpointing(checkpointed, True)
    yield True, error(packed(+1))


def _set_checkpointing(modules: Sequence[nn.Module], on: bool) -> None:
    for module in modules:
        module.gradient_checkpointing = on  # type: ignore[assignment]


def _separate_losses(network: Network, table: TokenTable, row: int) -> tuple[Tensor, Tensor]:
    """The two losses of one example by definition: three separate passes through the model's own forward."""
    sequence = torch.from_numpy(table.lm[row].astype("int64")).to(network.device)
    prompt = int(table.prompt_length[row])
    with network.attention(None):
        logits_NV = network.causal_lm(input_ids=sequence[None], use_cache=False).logits[0, prompt - 1 : -1]
    ce = F.cross_entropy(logits_NV.float(), sequence[prompt:], reduction="sum")
    text = np.concatenate([table.text[row], np.arange(PREDICTOR_BASE, PREDICTOR_BASE + PREDICTORS)])
    source_D, target_D = (separate_pass(network, ids)[-1] for ids in (text, table.code[row]))
    return ce, DISTANCES["cosine"](source_D[None], target_D[None]).sum()


def check_lora(subject: Subject) -> Found:
    """Every matrix except embeddings and head has an adapter, as has every target of the family; merging and reloading changes nothing."""
    if subject.family.no_adapters_because is not None:
        raise Skip(f"no adapters: {subject.family.no_adapters_because}")
    network = subject.network(LORA).eval()
    lm, targets = network.causal_lm, subject.family.lora_targets
    remedy = f"correct lora_targets of family {subject.family.name} in jepa_ray/models/families.py"
    adapted = {name for name, module in lm.named_modules() if hasattr(module, "lora_A")}
    if missing := sorted(set(targets) - {name.rpartition(".")[2] for name in adapted}):
        raise ValueError(f"the model has no linear layer {', '.join(missing)}; {remedy}")
    if bare := sorted(_without_adapter(lm, adapted)):
        raise ValueError(f"{len(bare)} matrices have no adapter, such as {bare[0]}; {remedy}")
    before = _logits(subject, network)
    with _scratch(network) as folder:
        network.lm.merge_and_unload().save_pretrained(folder)
        del network, lm
        after = _logits(subject, subject.network(source=str(folder)).eval())
    error = float((after - before).norm() / before.norm())
    if not error <= TOLERANCE:
        raise ValueError(f"merging the adapters and reloading changes logits by {error:.2g}; {_REPORT}")
    return Found(f"{len(adapted)} adapters on {len(targets)} kinds of layers, none left out; unchanged when merged and reloaded", error)


def _without_adapter(lm: nn.Module, adapted: set[str]) -> Iterator[str]:
    """Matrices that are neither embedding nor head nor in an adapted layer, including experts and other parameters outside nn.Linear."""
    head = lm.get_output_embeddings()  # type: ignore[operator]
    for name, module in lm.named_modules():
        inside = any(name == layer or name.startswith(f"{layer}.") for layer in adapted)
        if not inside and module is not head and not isinstance(module, nn.Embedding):
            yield from (f"{name}.{leaf}" for leaf, parameter in module.named_parameters(recurse=False) if parameter.ndim >= 2)


def check_predictor(subject: Subject) -> Found:
    """A training step moves all predictor tokens and, under LoRA, no embedding of the vocabulary; saved state is restored exactly."""
    lora = LORA if subject.family.no_adapters_because is None else None
    network = subject.network(lora, k=PREDICTORS).train()
    assert network.predictor is not None
    before = network.predictor.detach().clone()
    config = TrialConfig(
        model=subject.model(),
        lora=lora,
        objective=ObjectiveConfig(k=PREDICTORS),
        optim=OptimConfig(learning_rate=1e-3, batch_size=len(ROWS)),
    )
    state = TrainState(
        config=config,
        table=subject.table,
        network=network,
        optimizer=make_optimizer(network, config),
        term=Term.of(config, network),
        runtime=Runtime(device=str(subject.device)),
        packing=subject.backend,
    )
    train_step(state, np.array(ROWS), 0, 2)
    moved = (network.predictor.detach() - before).abs().amax(dim=1)
    if not bool(((moved > 0) & torch.isfinite(moved)).all()):
        raise ValueError(f"only {int((moved > 0).sum())} of {PREDICTORS} predictor tokens move in a training step; {_REPORT}")
    if lora is not None and any(p.requires_grad for p in network.causal_lm.get_input_embeddings().parameters()):
        raise ValueError(f"the vocabulary's embeddings are trained under LoRA; {_REPORT}")
    saved = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint.write(Path(scratch), state.snapshot())
        del network, state
        again = subject.network(lora, k=PREDICTORS)
        checkpoint.load(Path(scratch), again, make_optimizer(again, config))
    restored = dict(again.named_parameters())
    if wrong := [name for name, value in saved.items() if not torch.equal(restored[name], value)]:
        raise ValueError(f"{wrong[0]} restored from the trial's working checkpoint differs from what was saved; {_REPORT}")
    still = ", the vocabulary does not" if lora is not None else ""
    return Found(f"all {PREDICTORS} move{still}; a trial's state is restored bit for bit")


def check_stop(subject: Subject) -> Found:
    """Generation stops at the end of turn, tested with a head that is forced to write one, two or three ordinary tokens before it."""
    network, tokenizer = subject.network(), subject.tokenizer
    stop = int(subject.table.lm[0][-1])
    head = network.causal_lm.get_output_embeddings()
    rows = sorted(range(3), key=lambda i: int(subject.table.prompt_length[i]))  # the order within their batch
    ordinary = int(subject.table.lm[0][int(subject.table.prompt_length[0])])
    calls = 0

    def forced(_: Any, __: Any, logits: Tensor) -> Tensor:
        nonlocal calls
        out = torch.full_like(logits, -1e4)
        gone = len(rows) - len(out)  # rows end in their order, and leave the batch
        for row in range(gone, len(rows)):
            out[row - gone, ..., stop if calls >= row + 1 else ordinary] = 1e4
        calls += 1
        return out

    handle = head.register_forward_hook(forced)
    try:
        prompts = [subject.table.prompt(i) for i in rows]
        stop_text = subject.family.turn_end
        written = generate(
            network, tokenizer, prompts, turn_end=stop_text, batch_size=len(rows), max_new_tokens=12, packing=subject.backend
        )
    finally:
        handle.remove()
    lengths, one = [generation.num_tokens for generation in written], tokenizer.decode([ordinary])
    if not all(generation.stopped for generation in written) or lengths != [1, 2, 3] or calls != 4:
        raise ValueError(
            f"with {subject.family.turn_end!r} as the 2nd, 3rd and 4th token, outputs are {lengths} tokens long in {calls} passes; "
            f"the end of turn must be one token of the tokenizer, within the model's vocabulary of {head.weight.shape[0]}"
        )
    if written[0].text != one:
        raise ValueError(f"the output before the end of turn is {written[0].text!r} instead of {one!r}; {_REPORT}")
    return Found(f"outputs end at {subject.family.turn_end!r}, each at its own length")


def check_save(subject: Subject) -> Found:
    """Saving and reloading keeps every weight and every token, bit for bit."""
    network = subject.network().eval()
    logits, ids = _logits(subject, network), subject.table.lm.flat
    with _scratch(network) as folder:
        network.causal_lm.save_pretrained(folder)
        subject.tokenizer.save_pretrained(folder)
        again = subject.network(source=str(folder)).eval()
        saved = Subject(str(folder), subject.family, subject.device, subject.examples)
        if (
            not np.array_equal(saved.table.lm.flat, ids)
            or load_tokenizer(str(folder), saved.model()).get_vocab() != saved.tokenizer.get_vocab()
        ):
            raise ValueError("the saved tokenizer gives different tokens; save it with this version of Transformers and check that folder")
    before, after = network.state_dict(), again.state_dict()
    wrong = [name for name in before if name not in after or not torch.equal(before[name], after[name])]
    if wrong or before.keys() != after.keys() or not torch.equal(_logits(subject, again), logits):
        raise ValueError(f"{len(wrong)} tensors change when saved and reloaded, such as {(wrong or ['the logits'])[0]}; {_REPORT}")
    return Found(f"{len(before)} tensors and all tokens unchanged, bit for bit")


def _logits(subject: Subject, network: Network) -> Tensor:
    """(N, V) logits over the first examples' sequences, one at a time, through the model's own attention."""
    with torch.no_grad(), network.attention(None):
        sequences = (torch.from_numpy(subject.table.lm[row].astype("int64")).to(network.device) for row in ROWS)
        return torch.cat([network.causal_lm(input_ids=ids[None], use_cache=False).logits[0].float().cpu() for ids in sequences])


@contextmanager
def _scratch(network: Network) -> Iterator[Path]:
    """A temporary folder with room for the network's weights."""
    with tempfile.TemporaryDirectory() as folder:
        needed = sum(p.numel() * p.element_size() for p in network.parameters()) * 1.05
        if shutil.disk_usage(folder).free < needed:
            raise Skip(f"needs {needed / 1e9:.0f} GB in the temporary folder; set TMPDIR to use another")
        yield Path(folder)


CHECKS: dict[str, Check] = {
    **TEXT_CHECKS,
    "packing": check_packing,
    "gradients": check_gradients,
    "LoRA targets": check_lora,
    "predictor tokens": check_predictor,
    "stop token": check_stop,
    "save and reload": check_save,
}
"""All checks, in the order of the table; the first line of each docstring states the requirement."""
