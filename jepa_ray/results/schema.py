"""Schemas of a sweep's tables: every column of trials, metrics, predictions, embeddings and arms, and its type.

`tables.py` writes and reads them, and hands their names on.
"""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa

State = Literal["COMPLETE", "PRUNED", "FAILED", "RUNNING"]
Stage = Literal["search", "confirm", "matched"]
"""matched: the dearer of a method and its baseline, trained again with the FLOPs of the cheaper one (`confirm.equal_flops`)."""
FLOPS_ALIKE = 0.02
"""Training costs that differ by less than this share are equal."""
JUDGED = "test_accuracy"
"""What arms are compared by once they are confirmed: in a race, in the verdict and in the tables, whatever `search.metric` selects by."""

TEXT, REAL, INTEGER, FLAG = pa.string(), pa.float64(), pa.int64(), pa.bool_()


def _fields(kind: pa.DataType, names: str) -> dict[str, pa.DataType]:
    return dict.fromkeys(names.split(), kind)


IDENTITY: dict[str, pa.DataType] = {
    **_fields(TEXT, "trial_id config_id arm method stage state error"),
    **_fields(INTEGER, "number"),
}
"""Which trial this is and how it ended. `error` is null unless the state is FAILED. `number`: of a search trial, its place among the
suggestions of its arm, from 1; null for others."""

CONFIG: dict[str, pa.DataType] = {
    **_fields(TEXT, "family model init precision packing"),
    **_fields(FLAG, "trust_remote_code gradient_checkpointing"),
    **_fields(TEXT, "task train_file test_file databases"),
    **_fields(INTEGER, "num_train num_val num_test split_seed max_length"),
    **_fields(REAL, "base_fraction"),
    **_fields(TEXT, "objective"),
    **_fields(REAL, "lambda lambda_grad_ratio lambda_effective gamma"),
    **_fields(INTEGER, "k"),
    **_fields(REAL, "loss_dropout lambda_warmup lambda_end layer ema_momentum ema_end predictor_lr_factor"),
    **_fields(REAL, "temperature variance covariance sigreg"),
    **_fields(TEXT, "loss_dropout_mode layout readout target predictor control"),
    **_fields(INTEGER, "predictor_width"),
    **_fields(FLAG, "final_norm normalize symmetric gather"),
    **_fields(REAL, "learning_rate"),
    **_fields(INTEGER, "lora_r"),
    **_fields(REAL, "lora_alpha lora_dropout"),
    **_fields(INTEGER, "num_epochs batch_size micro_batch_size"),
    **_fields(TEXT, "schedule loss_on"),
    **_fields(FLAG, "train_end_of_turn"),
    **_fields(REAL, "warmup_ratio weight_decay beta1 beta2 max_grad_norm max_train_flops"),
    **_fields(INTEGER, "eval_batch_size max_new_tokens eval_every diagnostic_pairs embeddings"),
    **_fields(REAL, "diagnostic_share"),
    **_fields(FLAG, "evaluate_test sql_strict"),
    **_fields(TEXT, "judge"),
    **_fields(INTEGER, "seed"),
    **_fields(TEXT, "pretrain_task pretrain_train_file pretrain_test_file pretrain_databases pretrain_objective_in"),
    **_fields(INTEGER, "pretrain_num_train pretrain_num_val pretrain_num_test pretrain_split_seed pretrain_max_length"),
    **_fields(REAL, "pretrain_base_fraction pretrain_learning_rate"),
    **_fields(INTEGER, "pretrain_num_epochs pretrain_batch_size pretrain_micro_batch_size"),
    **_fields(TEXT, "pretrain_schedule pretrain_loss_on"),
    **_fields(FLAG, "pretrain_train_end_of_turn"),
    **_fields(REAL, "pretrain_warmup_ratio pretrain_weight_decay pretrain_beta1 pretrain_beta2 pretrain_max_grad_norm"),
    **_fields(INTEGER, "pretrain_seed"),
    **_fields(REAL, "mask_ratio mean_span"),
    **_fields(TEXT, "corpus keep_checkpoints"),
}
"""Every leaf of a TrialConfig, under the names that `config.columns` gives them."""

SUMMARY: dict[str, pa.DataType] = {
    **_fields(REAL, "val_accuracy val_exact val_prefix val_contains val_stopped val_errors val_paper val_equivalent val_undecided val_ce"),
    **_fields(REAL, "test_accuracy test_accuracy_clean test_exact test_prefix test_contains test_stopped test_errors"),
    **_fields(REAL, "test_paper test_equivalent test_undecided test_ce"),
    **_fields(REAL, "val_retrieval test_retrieval val_accuracy_untrained test_accuracy_untrained"),
    **_fields(REAL, "val_retrieval_untrained test_retrieval_untrained"),
    **_fields(REAL, "val_effective_rank test_effective_rank val_anisotropy test_anisotropy"),
    **_fields(REAL, "chance pretrain_ce pretrain_jepa train_ce train_jepa val_jepa lambda_used diag_seconds"),
    **_fields(REAL, "train_tokens train_flops train_flops_unpacked train_seconds val_seconds test_seconds wall_seconds peak_memory_bytes"),
    **_fields(
        INTEGER, "epochs_done steps num_parameters num_trainable num_workers train_examples val_examples test_examples dropped_examples"
    ),
    **_fields(INTEGER, "overlap_text overlap_target test_clean_examples"),
    **_fields(TEXT, "packing_used pretrained_sha alarms"),
    **_fields(REAL, "attention_error"),
    **_fields(TEXT, "dataset_sha git_sha versions device started_at finished_at"),
}
"""What a trial may put in `TrialResult.summary`; a key that is absent is stored as null.

`*_accuracy` is the share of answers that are correct by the task's own criterion, `chance` what guessing without looking at the question
reaches of it, measured on the labels of the split that was judged last; 0 where answers are no labels. Of a
masked encoder `*_accuracy` is a linear probe's, `*_retrieval` the share of nearest neighbours with the same label, and `*_untrained` the
same before the first step. `pretrained_sha` is the digest of the weights that a first stage handed on; its tokens,
FLOPs and seconds are part of `train_*`. `lambda_used` is lambda before its schedule, `val_ce` and `val_jepa` are the last diagnosed
losses on validation, `alarms` the names of what they and the embeddings raised (`training/diagnostics/alarms.py`). `packing_used` is
what `packing: auto` chose. `attention_error` is the largest difference that the start-up self-check saw between packed and separate passes.
`overlap_text` is the number of test examples whose Text is also one of training's or validation's, `test_accuracy_clean` the accuracy
without them, on `test_clean_examples`. `train_flops` is what was computed; `train_flops_unpacked` what the same training costs with every
sequence and view encoded by itself, whatever the packing, micro-batches and workers: budgets and comparisons at equal FLOPs use it.
`versions` is a JSON object in a string. Times are UTC, ISO 8601.
"""

TRIALS = pa.schema(list({**IDENTITY, **CONFIG, **SUMMARY}.items()))
METRICS = pa.schema(
    [
        ("trial_id", TEXT),
        ("step", INTEGER),
        ("epoch", REAL),
        ("split", TEXT),
        ("name", TEXT),
        ("value", REAL),
        ("train_flops", REAL),
        ("train_flops_unpacked", REAL),
        ("train_seconds", REAL),
    ]
)
PREDICTIONS = pa.schema(
    [
        ("trial_id", TEXT),
        ("split", TEXT),
        ("example_id", TEXT),
        ("prediction", TEXT),
        ("reference", TEXT),
        ("correct", FLAG),
        ("exact", FLAG),
        ("prefix_correct", FLAG),
        ("contains", FLAG),
        ("stopped", FLAG),
        ("error", TEXT),
        ("paper_correct", FLAG),
        ("equivalent", FLAG),
        ("undecided", FLAG),
        ("leaked", FLAG),
        ("question", pa.dictionary(pa.int32(), TEXT)),
    ]
)
"""`leaked`: the example's Text is also one of training's or validation's (of a validation example: one of training's); null in folders
of versions that did not ask. `question`: the Text; pandas reads it as a categorical column.
"""
EMBEDDINGS = pa.schema(
    [("trial_id", TEXT), ("split", TEXT), ("example_id", TEXT), ("view", TEXT), ("vector", pa.list_(pa.float16()))],
)
"""After training, of confirmed trials, where `evaluation.embeddings` asks for them: Enc(Text) without predictor tokens (view `text`) and
Enc(Code) (view `code`) of the same validation pairs in every trial."""
ARMS = pa.schema([(name, TEXT) for name in ("arm", "method", "family", "task", "kind", "baseline")])
"""`kind` is baseline, claim or control; `baseline` the arm that a claim or control is compared with, null where it has none."""


def unsound_arms(rows: list[dict[str, Any]]) -> str | None:
    """What is wrong with the rows of an arms table; None where they can be relied on."""
    if not all(row.get(name) for row in rows for name in ARMS.names if name != "baseline"):
        return "it lacks names"
    names = {row["arm"] for row in rows}
    if any(row["kind"] not in ("baseline", "claim", "control") or row.get("baseline") not in {None, *names} for row in rows):
        return "its kinds or baselines are none"
    return None


assert len(TRIALS) == len(IDENTITY) + len(CONFIG) + len(SUMMARY), "a column of the trials table is named twice"
