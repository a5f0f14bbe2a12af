"""Draws training examples as the model sees them: both views, the prompt and the labels, token by token, for the plan.

    Text view   <|user|>\\nlines with a dog<p1>        what the JEPA term reads is between the marks of MARKS
    Code view   <|assistant|>\\n.*dog.*
    prompt      <|system|>\\n...<|assistant|>\\n
    labels      .*dog.*<|end|>

In the control `shuffled`, one of the views is that of another example, which is named. Predictor tokens are `<p1>`, `<p2>`, ...; special
tokens are visible, characters that cannot be printed are escaped, and long sequences are shortened in the middle. Everything comes from the
tokens of the batch that training would build.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from jepa_ray.config import TrialConfig
from jepa_ray.data.packing import PREDICTOR_BASE, Views, make_batch
from jepa_ray.data.ragged import Ids
from jepa_ray.data.views import TokenTable
from jepa_ray.objectives.layouts import exchange, views_of
from jepa_ray.plan.table import table as aligned
from jepa_ray.training.epochs import epoch_steps
from jepa_ray.training.jepa_term import active_objective

ROWS = 3
MARKS = "\u27e6", "\u27e7"
"""Before and after tokens at which the JEPA term reads states."""
HALF = "\ufffd"
"""What a tokenizer decodes the first bytes of a character to."""
HEAD, TAIL = 120, 80
"""Characters of a long sequence that are shown, at its start and at its end."""


def draw(arm: str, config: TrialConfig, table: TokenTable, tokenizer: Any, remarks: Sequence[str] = ()) -> list[str]:
    """Lines for the first `ROWS` examples of a training table, as a trial of this arm encodes them. `remarks` end the first line."""
    objective = active_objective(config)
    what = f"{MARKS[0]} {MARKS[1]}: read by the JEPA term; <p1>: predictor token" if objective is not None else "it reads no views"
    count = min(ROWS, len(table))
    examples = f"{count} training examples" if count > 1 else "a training example"
    lines = [f"rows      {examples} as {arm} sees them ({what})" + "".join(f"; {remark}" for remark in remarks)]
    partner = _partners(config, len(table)) if objective is not None and objective.control == "shuffled" else None
    for row in range(count):
        views = views_of(objective, table, [row], seed=config.seed, partner=partner) if objective is not None else None
        batch = make_batch(
            table,
            [row],
            backend="plain",
            views=views,
            loss_on=config.optim.loss_on,
            train_end_of_turn=config.optim.train_end_of_turn,
        )
        sequences = _sequences(table, row, views, reverse=objective is not None and objective.layout == "reverse")
        sequences |= {"prompt": (table.prompt(row), ()), "labels": (batch.label_ids.astype(np.int32), ())}
        lines.append(f"  {printable(table.example_ids[row])}")
        if objective is not None and partner is not None and partner[row] != row:
            target = "Text" if objective.layout == "reverse" else "Code"
            lines[-1] += f" (shuffled: in the first epoch its {target} view is that of {printable(table.example_ids[partner[row]])})"
        lines += aligned([(f"    {name}", shortened(shown(ids, marks, tokenizer))) for name, (ids, marks) in sequences.items()])
    return lines


def _partners(config: TrialConfig, size: int) -> dict[int, int]:
    """Example -> the one whose target it gets in the first epoch of the shuffled control."""
    steps = epoch_steps(size, config.optim, config.seed, 0)
    return {row: other for step, rows in enumerate(steps) for row, other in exchange(rows.tolist(), config.seed, step).items()}


def _sequences(table: TokenTable, row: int, views: Views | None, reverse: bool) -> dict[str, tuple[Ids, Collection[int]]]:
    """What is encoded of an example -> its tokens, and the positions that are read."""
    plain: dict[str, tuple[Ids, Collection[int]]] = {"Text view": (table.text[row], ()), "Code view": (table.code[row], ())}
    if views is None:
        return plain
    source, target = set(views.source.index.tolist()), set(views.target.index.tolist())
    if not views.paths:  # states of the training sequence itself
        return {**plain, "sequence": (table.lm[row], source | target)}
    paths = [table.lm[row], *views.paths]
    sides = (
        (paths[int(views.source_path[0])], source),
        ((paths if views.frozen_paths is None else views.frozen_paths)[int(views.target_path[0])], target),
    )
    return dict(zip(plain, reversed(sides) if reverse else sides, strict=True))


def shown(ids: Ids, marks: Collection[int], tokenizer: Any) -> str:
    """Tokens as text on one line. `marks`: positions that are put between MARKS; of a character in several tokens, all of it."""

    def text(start: int, stop: int) -> str:
        return str(tokenizer.decode(ids[start:stop].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    out = ""
    for predictor, group in itertools.groupby(range(len(ids)), lambda at: int(ids[at]) >= PREDICTOR_BASE):
        run = list(group)
        whole = "" if predictor else text(run[0], run[-1] + 1)
        for marked, positions in itertools.groupby(run, lambda at: at in marks):
            part = list(positions)
            if predictor:
                piece = "".join(f"<p{int(ids[at]) - PREDICTOR_BASE + 1}>" for at in part)
            else:  # cut out of the whole run, because some tokenizers drop the space that a text begins with
                before, upto = (text(run[0], end).rstrip(HALF) for end in (part[0], part[-1] + 1))
                upto = whole if part[-1] == run[-1] else upto
                piece = upto[len(before) :] if whole.startswith(before) and whole.startswith(upto) else text(part[0], part[-1] + 1)
            space = piece[: len(piece) - len(piece.lstrip(" "))] if piece.strip(" ") else ""
            out += f"{space}{MARKS[0]}{printable(piece[len(space) :])}{MARKS[1]}" if marked else printable(piece)
    return out


def printable(text: str) -> str:
    """The text with line breaks and other characters that cannot be printed as escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in text)


def shortened(text: str) -> str:
    """The start and the end of a long text."""
    left_out = len(text) - HEAD - TAIL
    return f"{text[:HEAD]} ... ({left_out:,} characters) ... {text[-TAIL:]}" if left_out > 40 else text
