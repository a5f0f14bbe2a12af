"""Log-probability of the reference answers: how probable the model finds them, even where it writes something else.

An answer is right or wrong, so a model at 0 % says nothing. The probability that it would give the reference always says something:

    log p(reference | prompt) = sum_t log p(token_t | prompt, tokens before t)        natural logarithm, by the chain rule

The tokens are those of the answer as the template renders it, from the first one after the prompt, without the end of turn. So they are
the same in every arm of a family, whether or not the arm trains the end of turn; when an answer stops is measured by `stopped`. The sum,
not its mean per token, is the log-probability of the event that exact match counts, and it does not depend on how a tokenizer cuts the
answer. Two arms of a family have the same tokens, so a difference needs no division by their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from jepa_ray.data.packing import Backend, make_batch
from jepa_ray.data.views import TokenTable
from jepa_ray.models.network import Network

TOKENS = 16_384
"""Tokens per pass, before packing, which bound the memory of long examples."""


def reference_logprobs(
    network: Network, table: TokenTable, rows: Sequence[int], *, batch_size: int, bf16: bool = False, packing: Backend = "trie"
) -> list[tuple[float, int]]:
    """(log-probability of the reference given its prompt, in nats; number of its tokens) per row, in the order of `rows`.

    One teacher-forced pass over the examples, without dropout or gradient; examples of similar length share a batch.
    """
    out: dict[int, tuple[float, int]] = {}
    order = sorted(rows, key=lambda i: (int(table.lm.lengths[i]), i))
    was_training = network.training
    network.eval()
    with torch.inference_mode(), torch.autocast(network.device.type, dtype=torch.bfloat16, enabled=bf16):
        for chosen in _batches(order, table, batch_size):
            batch = make_batch(table, chosen, backend=packing, train_end_of_turn=False)
            on_device = network.place(batch)
            losses_N = network.label_losses(network.encode(on_device)[on_device.label_index_N], on_device.label_ids_N)
            counts = [max(0, int(table.lm.lengths[i] - table.prompt_length[i]) - 1) for i in chosen]
            owner_N = np.repeat(np.arange(len(chosen)), counts)
            sums = np.bincount(owner_N, weights=losses_N.double().cpu().numpy(), minlength=len(chosen))
            out |= {i: (-float(total), count) for i, total, count in zip(chosen, sums, counts, strict=True)}
    network.train(was_training)
    return [out[i] for i in rows]


def _batches(order: Sequence[int], table: TokenTable, size: int) -> Iterator[list[int]]:
    """Up to `size` rows and `TOKENS` tokens at a time, but at least one row."""
    batch: list[int] = []
    tokens = 0
    for i in order:
        length = int(table.lm.lengths[i])
        if batch and (len(batch) == size or tokens + length > TOKENS):
            yield batch
            batch, tokens = [], 0
        batch.append(i)
        tokens += length
    if batch:
        yield batch
