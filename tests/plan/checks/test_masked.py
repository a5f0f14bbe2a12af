"""Sweeps of masked encoders: legal files, their search spaces, and the sentences that refuse the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from jepa_ray import plan
from jepa_ray.config import MaskedConfig, ModelConfig, ObjectiveConfig, TrialConfig, arms, columns
from jepa_ray.plan.load import load_sweep
from jepa_ray.results import CONFIG
from tests.sweep_files import SOUND, Write, refused, refused_once, writer

FILE = Path(__file__).resolve().parents[3] / "search_spaces" / "masked_span.yaml"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


def test_arms_and_their_search_spaces() -> None:
    sweep = load_sweep(FILE)
    by_method = {arm.method: arm for arm in arms(sweep)}
    assert {"mlm", "jepa"} <= set(by_method)
    masking = {"masked.mask_ratio", "masked.mean_span"}
    assert masking <= set(plan.space(sweep, by_method["mlm"])) and "objective.ema_momentum" in plan.space(sweep, by_method["jepa"])
    config = plan.trial_config(sweep, by_method["jepa"], {"masked.mask_ratio": 0.5, "objective.predictor_width": 32})
    assert config.masked is not None and config.masked.mask_ratio == 0.5
    row = columns(config)
    assert row["mask_ratio"] == 0.5 and row["mean_span"] == 2 and row["predictor_width"] == 32 and set(row) == set(CONFIG)
    causal = columns(TrialConfig(model=ModelConfig(family="llama3")))
    assert causal["mask_ratio"] is None and set(causal) == set(CONFIG)


@pytest.mark.parametrize(
    ("override", "beginning"),
    [
        ("base.masked.mask_ratio=0", "base.masked.mask_ratio (override): must be above 0.0, got 0"),
        ("base.masked.mean_span=0.5", "base.masked.mean_span (override): must be at least 1.0, got 0.5"),
        ("base.masked.corpus=none/such.txt", "base.masked.corpus (override): the file none/such.txt does not exist"),
        (
            "families=[llama3]",
            "families (override): llama3 is a causal model; drop base.masked, or choose families from distilbert, bert",
        ),
        ("families=[destilbert]", "families (override): unknown family 'destilbert'; did you mean 'distilbert'?"),
        ("task=nl-rx", "task (override): nl-rx has no labels, but masked encoders are scored by probes"),
        ("base.lora={r: 8}", "base.lora (override): adapters are not supported for masked encoders"),
        ("resources={sharding: fsdp, workers_per_trial: 2}", "resources.sharding (override): fsdp is not supported for masked encoders"),
        ("base.optim.tokens_per_forward=99", "base.optim.tokens_per_forward (override): is not supported for masked encoders"),
        ("base.model.attention=flex", "base.model.attention (override): has no effect with base.masked"),
        ("confirm.keep=all", "confirm.keep (override): has no effect on masked encoders"),
        ("base.optim.loss_on=all", "base.optim.loss_on (override): has no effect with base.masked"),
        ("base.evaluation.embeddings=8", "base.evaluation.embeddings (override): has no effect, since embeddings of masked encoders"),
        ("scheduler.time_attr=step", "scheduler.time_attr (override): masked encoders are validated after whole epochs only"),
        ("search.metric=val_exact", "search.metric (override): val_exact is not measured on masked encoders"),
        ("methods.jepa.k=1", "methods.jepa (override): k = 1, but with base.masked the JEPA term has {distance: cosine"),
        ("methods.jepa.loss_dropout=0.5", "methods.jepa (override): loss_dropout has no effect with base.masked"),
        ("methods.jepa.lambda=0", "methods.jepa (line 14 and override): gamma = 0 leaves nothing to train"),
        ("space.objective.k.int=[0, 2]", "space.objective.k (override): cannot be searched with base.masked"),
        (
            "space.masked.mask_ratio.float=[0, 0.5]",
            "space.masked.mask_ratio (line 18 and override): must be above 0.0, got 0.0; narrow the range",
        ),
        ("space.masked.corpus.choice=[a, b]", "space.masked.corpus (override): unknown parameter"),
    ],
)
def test_refused(override: str, beginning: str) -> None:
    if override.startswith("methods.jepa."):  # other keys then break rules as well
        return _reported(refused(FILE, override), beginning.replace(" (override)", ""))
    refused_once(FILE, override, beginning)
    return None


def _reported(messages: list[str], beginning: str) -> None:
    place, _, sentence = beginning.partition(": ")
    assert any(message.startswith(place) and sentence in message for message in messages), messages


def test_a_causal_sweep_refuses_settings_of_masked_encoders(write: Write) -> None:
    path = write(SOUND)
    refused_once(path, "families=[bert]", "families (override): bert is a masked encoder; set e.g. base.masked")
    refused_once(path, "search.metric=val_retrieval", "search.metric (override): val_retrieval is not measured on causal models")
    refused_once(path, "space.mask_ratio.float=[0.1, 0.5]", "space.masked.mask_ratio (override): base.masked is not set")


def test_a_masked_trial_refuses_an_objective_that_does_not_fit() -> None:
    with pytest.raises(ValidationError, match="with base"):
        TrialConfig(model=ModelConfig(family="bert"), masked=MaskedConfig(), objective=ObjectiveConfig())
