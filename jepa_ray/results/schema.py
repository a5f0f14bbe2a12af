"""Schemas of a sweep's tables: every column of trials, metrics, predictions, embeddings and arms, its type and what it contains.

`tables.py` reads and writes them; `describe.py` lists all columns with their descriptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import pyarrow as pa

State = Literal["COMPLETE", "PRUNED", "FAILED", "RUNNING"]
Stage = Literal["search", "confirm", "matched"]
"""matched: the more expensive of a method and its baseline, retrained with the FLOPs of the cheaper one (`confirm.equal_flops`)."""
FLOPS_ALIKE = 0.02
"""Training costs that differ by less than this share count as equal."""
JUDGED = "test_accuracy"
"""The column that compares confirmed arms (in a race, in the verdict and in the tables), whatever `search.metric` selects by."""

TEXT, REAL, INTEGER, FLAG = pa.string(), pa.float64(), pa.int64(), pa.bool_()


class Column(NamedTuple):
    """A column of a table."""

    type: pa.DataType
    description: str
    """What it contains, in which unit, and when it is null; shares are in [0, 1]. It is never null if the description does not say so."""


def _fields(kind: pa.DataType, names: str) -> dict[str, pa.DataType]:
    return dict.fromkeys(names.split(), kind)


IDENTITY: dict[str, Column] = {
    "trial_id": Column(TEXT, "The `config_id`, with `-2`, `-3`, ... for later attempts."),
    "config_id": Column(TEXT, "16 hex digits that identify the configuration, its data, its weights and the number of workers."),
    "arm": Column(TEXT, "`method/family`, followed by `/task` if the sweep has several tasks."),
    "method": Column(TEXT, "Name of the method in the sweep file."),
    "stage": Column(TEXT, "`search`, `confirm`, or `matched`: retrained with the FLOPs of the cheaper arm (`confirm.equal_flops`)."),
    "state": Column(TEXT, "How the trial ended: `COMPLETE`, `PRUNED` or `FAILED`."),
    "error": Column(TEXT, "Why the trial failed. Null unless `state` is `FAILED`."),
    "number": Column(
        INTEGER, "Place of a search trial among the suggestions of its arm, from 1. Null in other stages and from earlier versions."
    ),
}
"""Which trial this is and how it ended."""

CONFIG: dict[str, pa.DataType] = {
    **_fields(TEXT, "family model init precision packing attention compile"),
    **_fields(FLAG, "trust_remote_code gradient_checkpointing"),
    **_fields(TEXT, "task train_file test_file databases data_judge data_text data_code data_system data_cluster"),
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
    **_fields(INTEGER, "num_epochs batch_size micro_batch_size tokens_per_forward"),
    **_fields(TEXT, "schedule loss_on"),
    **_fields(FLAG, "train_end_of_turn"),
    **_fields(REAL, "warmup_ratio weight_decay beta1 beta2 max_grad_norm max_train_flops"),
    **_fields(INTEGER, "eval_batch_size max_new_tokens eval_every diagnostic_pairs embeddings"),
    **_fields(REAL, "diagnostic_share"),
    **_fields(FLAG, "evaluate_test sql_strict"),
    **_fields(TEXT, "judge eval_at_steps"),
    **_fields(INTEGER, "seed"),
    **_fields(TEXT, "pretrain_task pretrain_train_file pretrain_test_file pretrain_databases pretrain_objective_in"),
    **_fields(TEXT, "pretrain_data_judge pretrain_data_text pretrain_data_code pretrain_data_system pretrain_data_cluster"),
    **_fields(INTEGER, "pretrain_num_train pretrain_num_val pretrain_num_test pretrain_split_seed pretrain_max_length"),
    **_fields(REAL, "pretrain_base_fraction pretrain_learning_rate"),
    **_fields(INTEGER, "pretrain_num_epochs pretrain_batch_size pretrain_micro_batch_size pretrain_tokens_per_forward"),
    **_fields(TEXT, "pretrain_schedule pretrain_loss_on"),
    **_fields(FLAG, "pretrain_train_end_of_turn"),
    **_fields(REAL, "pretrain_warmup_ratio pretrain_weight_decay pretrain_beta1 pretrain_beta2 pretrain_max_grad_norm"),
    **_fields(INTEGER, "pretrain_seed"),
    **_fields(REAL, "mask_ratio mean_span"),
    **_fields(TEXT, "corpus keep_checkpoints"),
}
"""Every leaf of a TrialConfig, under the names that `config.columns` gives them. `describe.py` takes the descriptions from its fields."""

SUMMARY: dict[str, Column] = {
    "val_accuracy": Column(
        REAL, "Share of validation answers that are correct by the task's criterion; of a masked encoder, a linear probe's."
    ),
    "val_exact": Column(REAL, "Share of validation answers equal to the reference as text. Null for masked encoders."),
    "val_prefix": Column(REAL, "Share of validation answers that start with the reference. Null for masked encoders."),
    "val_contains": Column(REAL, "Share of validation answers that contain the reference. Null for masked encoders."),
    "val_stopped": Column(REAL, "Share of validation answers that end before the token cap. Null for choice tasks and masked encoders."),
    "val_errors": Column(REAL, "Share of validation answers that could not be judged. Null for masked encoders."),
    "val_paper": Column(
        REAL, "Share correct by the rule of the paper's own script, on validation. Null if that is the task's own, and for masked encoders."
    ),
    "val_equivalent": Column(
        REAL, "Share of validation answers that describe the same language as the reference. Null unless regexes are judged."
    ),
    "val_undecided": Column(REAL, "Share of validation answers whose equivalence could not be decided. Null unless regexes are judged."),
    "val_logprob": Column(
        REAL,
        "Mean over validation examples of `reference_logprob`: nats per answer, without the end of turn. Null for masked encoders, and "
        "from earlier versions.",
    ),
    "val_ce": Column(REAL, "Last diagnosed cross-entropy on validation, nats per label. Null if the trained model was not diagnosed."),
    "test_accuracy": Column(REAL, "`val_accuracy` on the test split. Null if that was not scored, as in every search trial."),
    "test_accuracy_clean": Column(
        REAL, "`test_accuracy` without leaked examples (see `overlap_text`). Null if not scored, or if all are leaked."
    ),
    "test_exact": Column(REAL, "`val_exact` on the test split. Null if that was not scored, and for masked encoders."),
    "test_prefix": Column(REAL, "`val_prefix` on the test split. Null if that was not scored, and for masked encoders."),
    "test_contains": Column(REAL, "`val_contains` on the test split. Null if that was not scored, and for masked encoders."),
    "test_stopped": Column(REAL, "`val_stopped` on the test split. Null if that was not scored, for choice tasks and for masked encoders."),
    "test_errors": Column(REAL, "`val_errors` on the test split. Null if that was not scored, and for masked encoders."),
    "test_paper": Column(REAL, "`val_paper` on the test split. Null if that was not scored, or if `val_paper` is null."),
    "test_equivalent": Column(REAL, "`val_equivalent` on the test split. Null if that was not scored, and unless regexes are judged."),
    "test_undecided": Column(REAL, "`val_undecided` on the test split. Null if that was not scored, and unless regexes are judged."),
    "test_logprob": Column(
        REAL, "`val_logprob` on the test split. Null if that was not scored, for masked encoders, and from earlier versions."
    ),
    "test_ce": Column(REAL, "Reserved for the cross-entropy on the test split. Always null: no trial computes it."),
    "val_retrieval": Column(REAL, "Share of nearest neighbours with the same label, on validation. Null for causal models."),
    "test_retrieval": Column(REAL, "`val_retrieval` on the test split. Null if that was not scored, and for causal models."),
    "val_accuracy_untrained": Column(REAL, "`val_accuracy` before the first step. Null for causal models."),
    "test_accuracy_untrained": Column(
        REAL, "`test_accuracy` before the first step. Null if the test split is not scored, and for causal models."
    ),
    "val_retrieval_untrained": Column(REAL, "`val_retrieval` before the first step. Null for causal models."),
    "test_retrieval_untrained": Column(
        REAL, "`test_retrieval` before the first step. Null if the test split is not scored, and for causal models."
    ),
    "val_effective_rank": Column(REAL, "Effective rank of the validation texts' states, in dimensions. Null for causal models."),
    "test_effective_rank": Column(REAL, "`val_effective_rank` on the test split. Null if that was not scored, and for causal models."),
    "val_anisotropy": Column(REAL, "Mean cosine between the states of distinct validation texts. Null for causal models."),
    "test_anisotropy": Column(REAL, "`val_anisotropy` on the test split. Null if that was not scored, and for causal models."),
    "chance": Column(
        REAL,
        "Accuracy of guessing without the question, on the last split judged (masked encoders: val). 0 unless answers are labels or few.",
    ),
    "pretrain_ce": Column(REAL, "Mean cross-entropy in the last epoch of the first stage, nats per label. Null without a first stage."),
    "pretrain_jepa": Column(REAL, "Mean JEPA loss per pair in the last epoch of the first stage. Null if that has no JEPA term."),
    "train_ce": Column(REAL, "Mean cross-entropy in the last epoch, nats per label."),
    "train_jepa": Column(REAL, "Mean JEPA loss per pair in the last epoch. Null without a JEPA term, or if no step computed it."),
    "val_jepa": Column(REAL, "Last diagnosed JEPA distance on validation, without regularisers; cosine for baselines. Null like `val_ce`."),
    "lambda_used": Column(REAL, "lambda before its schedule; 0 without a JEPA term or if a control weighs it 0. Null for masked encoders."),
    "diag_seconds": Column(REAL, "Seconds spent on diagnostics. Null if there were none."),
    "train_tokens": Column(REAL, "Tokens encoded in training, each shared prefix once. Includes the first stage."),
    "train_flops": Column(REAL, "FLOPs computed in training. Includes the first stage."),
    "train_flops_unpacked": Column(
        REAL,
        "FLOPs of the same training with every sequence and view encoded separately: independent of packing, micro-batches and workers. "
        "Budgets and comparisons at equal FLOPs use it. Includes the first stage. Null or NaN from earlier versions.",
    ),
    "train_seconds": Column(REAL, "Seconds of training. Includes the first stage."),
    "val_seconds": Column(REAL, "Seconds of validation, all rounds together."),
    "test_seconds": Column(REAL, "Seconds to score the test split. Null if that was not scored."),
    "wall_seconds": Column(REAL, "Seconds from start to end, summed over all attempts of the trial."),
    "peak_memory_bytes": Column(REAL, "Bytes: the GPU's peak in this trial; on a CPU the process's, including its earlier trials."),
    "epochs_done": Column(INTEGER, "Completed epochs, without those of the first stage."),
    "steps": Column(INTEGER, "Optimizer steps, without those of the first stage."),
    "num_parameters": Column(INTEGER, "Parameters of the network, adapters and predictor included."),
    "num_trainable": Column(INTEGER, "Parameters that training updates."),
    "num_workers": Column(INTEGER, "Workers that trained in parallel."),
    "train_examples": Column(INTEGER, "Training examples (of a masked encoder: passages), without dropped ones."),
    "val_examples": Column(INTEGER, "Validation examples, without dropped ones. Null for masked encoders."),
    "test_examples": Column(INTEGER, "Test examples, without dropped ones. Null for masked encoders, or without a test split."),
    "dropped_examples": Column(INTEGER, "Examples of all splits dropped because they exceed `max_length`."),
    "overlap_text": Column(
        INTEGER, "Test examples whose Text is also in training or validation, or a conversation that begins or continues it (*leaked*)."
    ),
    "overlap_target": Column(INTEGER, "Test examples whose answer is also in training or validation."),
    "test_clean_examples": Column(INTEGER, "Test examples behind `test_accuracy_clean`. Null if the test split was not scored."),
    "packing_used": Column(TEXT, "The packing that `packing: auto` chose, or the one configured. Null for masked encoders."),
    "attention_used": Column(TEXT, "The attention of packed rows (`bucketed` or `flex`), or `plain`. Null for masked encoders."),
    "compiled": Column(FLAG, "Whether the steps ran as one compiled graph. Null for masked encoders, and until the first epoch."),
    "pretrained_sha": Column(TEXT, "Digest of the weights that the first stage handed on. Null without a first stage."),
    "alarms": Column(TEXT, "Names of the alarms of `training/diagnostics/alarms.py`, joined by `;`. Null if none was raised."),
    "attention_error": Column(
        REAL, "Largest relative error of a state in packed (masked encoder: padded) against separate passes, before training."
    ),
    "dataset_sha": Column(TEXT, "SHA-256 of the contents of all splits, and of a masked encoder's corpus."),
    "git_sha": Column(TEXT, "Commit of the package, with `-dirty` for uncommitted changes. Null outside a checkout."),
    "versions": Column(TEXT, "Versions of Python, the package and its main libraries: a JSON object in a string."),
    "model_error": Column(
        TEXT, "Why the trained model could not be saved. Null if it was, if none was to be kept (`confirm.keep`), and for masked encoders."
    ),
    "device": Column(TEXT, "Device of the first worker, such as `cpu` or `cuda:0`."),
    "started_at": Column(TEXT, "UTC time of the trial's start, ISO 8601."),
    "finished_at": Column(TEXT, "UTC time of the trial's end, ISO 8601."),
}
"""What a trial may put in `TrialResult.summary`. A key that is absent is stored as null: a trial that ends early lacks the later ones."""

COLUMNS: dict[str, dict[str, Column]] = {
    "metrics": {
        "trial_id": Column(TEXT, "The trial, as in the trials table."),
        "step": Column(INTEGER, "Optimizer steps so far; 0 for the first stage."),
        "epoch": Column(REAL, "Epochs so far; 0 is before training, and an n-epoch first stage has 1 - n to 0."),
        "split": Column(
            TEXT,
            "`train`, `val`, `test`, `pretrain` (the first stage), `diag` (diagnostics) or `step` (every few seconds): the first word of "
            "`name`.",
        ),
        "name": Column(TEXT, "Name of the metric, such as `val_exact`, `diag_rank_text` or `step_ce`."),
        "value": Column(REAL, "Value of the metric; NaN if it is not defined for this trial."),
        "train_flops": Column(
            REAL, "FLOPs computed in training so far, first stage included. Null in the split `step` of several workers."
        ),
        "train_flops_unpacked": Column(
            REAL,
            "The same with every sequence and view encoded separately. Null or NaN from earlier versions, and null like `train_flops`.",
        ),
        "train_seconds": Column(REAL, "Seconds of training so far, first stage included."),
    },
    "predictions": {
        "trial_id": Column(TEXT, "The trial, as in the trials table."),
        "split": Column(TEXT, "`val` or `test`."),
        "example_id": Column(TEXT, "Id of the example, the same in all trials."),
        "prediction": Column(TEXT, "The answer as text; of a choice task or masked encoder, the option or label chosen."),
        "reference": Column(TEXT, "The correct answer as text. Null if it is a label that a masked encoder's training data lack."),
        "correct": Column(FLAG, "Whether the answer is correct by the task's criterion."),
        "exact": Column(FLAG, "Whether it equals the reference as text. Null for masked encoders."),
        "prefix_correct": Column(FLAG, "Whether it starts with the reference. Null for masked encoders."),
        "contains": Column(FLAG, "Whether the reference occurs in it. Null for masked encoders."),
        "stopped": Column(FLAG, "Whether it ended before the token cap. Null for choice tasks and masked encoders."),
        "error": Column(TEXT, "Why it could not be judged (it is then not correct). Null if it could."),
        "paper_correct": Column(
            FLAG, "Whether it is correct by the rule of the paper's own script. Null if that is the task's own, and for masked encoders."
        ),
        "equivalent": Column(
            FLAG, "Whether it describes the same language as the reference. Null if undecided, and unless regexes are judged."
        ),
        "undecided": Column(FLAG, "Whether equivalence could not be decided. Null unless regexes are judged."),
        "reference_logprob": Column(
            REAL,
            "Log-probability of the reference given its prompt, teacher-forced, in nats: the sum over the answer's tokens without the end "
            "of turn, so that arms that do not train it are comparable. Null for masked encoders, and from earlier versions.",
        ),
        "reference_tokens": Column(
            INTEGER, "Number of tokens in `reference_logprob`'s sum. Null for masked encoders, and from earlier versions."
        ),
        "cluster": Column(
            TEXT,
            "Source of the example: its value of the column `data.cluster`, or else its database. Null if it has none (generated examples "
            "have none), and from earlier versions.",
        ),
        "leaked": Column(FLAG, "Whether the Text is also in training (for test: or validation). Null from earlier versions."),
        "question": Column(pa.dictionary(pa.int32(), TEXT), "The Text; pandas reads a categorical column. Null from earlier versions."),
    },
    "embeddings": {
        "trial_id": Column(TEXT, "The trial, as in the trials table."),
        "split": Column(TEXT, "`val`: the same validation pairs in every trial."),
        "example_id": Column(TEXT, "Id of the example, as in the predictions table."),
        "view": Column(TEXT, "`text`: Enc(Text) without predictor tokens; `code`: Enc(Code)."),
        "vector": Column(pa.list_(pa.float16()), "The state after training, (width,)."),
    },
    "arms": {
        "arm": Column(TEXT, "`method/family`, followed by `/task` if the sweep has several tasks."),
        "method": Column(TEXT, "Name of the method in the sweep file."),
        "family": Column(TEXT, "Name of the model family."),
        "task": Column(TEXT, "Name of the task."),
        "kind": Column(TEXT, "`baseline`, `claim` or `control`."),
        "baseline": Column(
            TEXT, "The arm without a JEPA term that belongs to a claim or control. Null for a baseline, or if no baseline fits."
        ),
        "against": Column(
            pa.list_(TEXT), "Arms that this one is claimed to differ from. Null: a claim from its baseline, others from none."
        ),
    },
}
"""The columns of the tables other than trials."""


def _schema(columns: Mapping[str, Column]) -> pa.Schema:
    return pa.schema([(name, column.type) for name, column in columns.items()])


TRIALS = pa.schema([*_schema(IDENTITY), *(pa.field(name, kind) for name, kind in CONFIG.items()), *_schema(SUMMARY)])
METRICS = _schema(COLUMNS["metrics"])
PREDICTIONS = _schema(COLUMNS["predictions"])
EMBEDDINGS = _schema(COLUMNS["embeddings"])
"""After training, of confirmed trials, if `evaluation.embeddings` requests them."""
ARMS = _schema(COLUMNS["arms"])


def unsound_arms(rows: list[dict[str, Any]]) -> str | None:
    """What is wrong with the rows of an arms table; None if they can be relied on."""
    if not all(row.get(name) for row in rows for name in ARMS.names if name not in ("baseline", "against")):
        return "a name is missing"
    names = {row["arm"] for row in rows}
    if any(row["kind"] not in ("baseline", "claim", "control") or row.get("baseline") not in {None, *names} for row in rows):
        return "it has an unknown kind or baseline"
    if any(other not in names for row in rows for other in row.get("against") or ()):
        return "it compares an arm with one that it does not have"
    return None


assert len(set(TRIALS.names)) == len(IDENTITY) + len(CONFIG) + len(SUMMARY), "a column of the trials table is named twice"
