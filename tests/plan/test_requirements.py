"""What trials need on a card: whether it fits, remedies that really fit, and hours by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from jepa_ray.config import SweepConfig, arms
from jepa_ray.models.checkpoint_configs import CHECKPOINT_CONFIGS
from jepa_ray.models.footprint import Training, margin
from jepa_ray.models.shapes import Shape
from jepa_ray.plan import Demand, Estimate, EvaluationDemand, Pass, StageDemand, budget
from jepa_ray.plan.hardware import CARDS, Card
from jepa_ray.plan.requirements import Requirement, Speed, cost, refusals, requirements

LLAMA_1B, LLAMA_8B = (CHECKPOINT_CONFIGS[f"meta-llama/Llama-3.{name}-Instruct"] for name in ("2-1B", "1-8B"))
H100 = CARDS["h100"]
FLOPS = 1e16


def make_sweep(**resources: Any) -> SweepConfig:
    base = resources.pop("base", {})
    return SweepConfig.model_validate(
        {
            "name": "x",
            "families": ["llama3"],
            "model": "paper",
            "methods": {"baseline": "none"},
            "search": {"num_trials": 10},
            "confirm": {"seeds": [5, 6]},
            "resources": {"gpus_per_worker": 1} | resources,
            "base": base,
        }
    )


def make_estimate(config: Any = LLAMA_1B, tokens: int = 4000, examples: int = 16, **training: Any) -> Estimate:
    stage = StageDemand(
        training=Training(**training),
        largest=Pass(tokens, tokens, tokens // 4),
        examples=examples,
        single=Pass(tokens // examples, tokens // examples, tokens // examples // 4),
        accumulates=True,
    )
    evaluation = EvaluationDemand(prompts=512, test_prompts=2000, validations=4, prompt_tokens=100, answer_tokens=50, batch_size=64)
    demand = Demand(Shape.of(config), (stage,), evaluation)
    return Estimate(train_examples=8000, train_tokens=1e6, train_flops=FLOPS, checkpoint_bytes=1e9, demand=demand)


def need(estimate: Estimate, card: Card | None = H100, **resources: Any) -> Requirement:
    return requirements(make_sweep(**resources), {"baseline/llama3": estimate}, card)["baseline/llama3"]


def test_one_billion_parameters_fit_and_eight_do_not() -> None:
    small, large = need(make_estimate()), need(make_estimate(LLAMA_8B))
    assert small.fits and small.possible and small.remedies == ()
    assert small.memory.state == pytest.approx(16 * 1_235_814_400)
    assert small.memory.state < small.memory.peak < 40e9
    assert not large.fits and not large.possible
    sentence = refusals(make_sweep(), H100, {"baseline/llama3": large})[0]
    assert "baseline/llama3 does not fit on H100 SXM with any micro-batch size" in sentence
    assert "take 128.5 GB, and training or evaluation at least" in sentence and "of the 76.3 GB that can be used" in sentence
    assert "base.lora.r=16" in sentence and "resources.sharding=fsdp" in sentence
    assert refusals(make_sweep(), H100, {"baseline/llama3": small}) == []


def test_every_remedy_is_enough_by_itself() -> None:
    """The changes that the plan proposes are applied to the demand; each then fits."""
    estimate = make_estimate(tokens=60_000, examples=64)
    assert estimate.demand is not None
    stage = estimate.demand.stages[0]
    found = need(estimate)
    assert not found.fits and found.possible and len(found.remedies) == 4
    for remedy in found.remedies:
        changes: dict[str, Any] = {}
        one = stage
        for change in remedy.split(" "):
            key, _, value = change.partition("=")
            if key == "base.optim.micro_batch_size":
                size = int(value)
                largest = Pass(*(part * size // 64 for part in (60_000, 60_000, 15_000)))
                one = replace(one, largest=largest, examples=size)
            elif key == "base.model.gradient_checkpointing":
                changes["gradient_checkpointing"] = True
            elif key == "base.lora":
                changes |= {"rank": 16, "dropout": 0.1}
            elif key == "resources.workers_per_trial":
                changes["workers"] = int(value)
            elif key == "resources.sharding":
                changes["sharding"] = "fsdp"
        one = replace(one, training=replace(one.training, **changes))
        assert need(replace(estimate, demand=replace(estimate.demand, stages=(one,)))).fits, remedy


def test_automatic_sharding_is_used_where_copies_do_not_fit() -> None:
    eight = make_estimate(LLAMA_8B, workers=8)
    assert need(eight, workers_per_trial=8).sharding == "fsdp"
    assert need(eight, workers_per_trial=8).fits
    assert not need(eight, workers_per_trial=8, sharding="ddp").possible
    # A validation gathers the whole weights (4 bytes each), which more workers do not make smaller.
    small = need(eight, CARDS["a100-40gb"], workers_per_trial=8)
    assert small.memory.state < margin(CARDS["a100-40gb"].memory) and not small.possible
    assert small.remedies and all(remedy.startswith("base.lora.r=16") for remedy in small.remedies)
    assert need(make_estimate(workers=8), workers_per_trial=8).sharding == "ddp"


def test_a_fraction_of_a_gpu_has_that_much_memory() -> None:
    half = need(make_estimate(), gpus_per_worker=0.5)
    assert half.budget == margin(H100.memory) / 2


def test_seconds_by_hand() -> None:
    found = need(make_estimate())
    assert found.train_seconds == pytest.approx(FLOPS / (989e12 * 0.35))
    # 8 batches of 64 prompts, 50 tokens each: launching 40 kernels in each of 16 layers at 10 us takes longer than reading 2.5 GB
    decode, prefill = 16 * 40 * 10e-6, 2 * 1_235_814_400 * 100 / (989e12 * 0.35)
    assert found.evaluation_seconds == pytest.approx(4 * (8 * 50 * decode + 512 * prefill))
    assert found.test_seconds == pytest.approx(32 * 50 * decode + 2000 * prefill)
    eight = need(make_estimate(LLAMA_8B), replace(H100, bandwidth=H100.bandwidth / 4))  # type: ignore[operator]
    reading = (2 * 8_030_261_248 + 64 * 125 * 32 * 2 * 8 * 128 * 2) / (3.35e12 / 4)
    assert eight.test_seconds == pytest.approx(32 * 50 * reading + 2000 * 2 * 8_030_261_248 * 100 / (989e12 * 0.35), rel=1e-6)
    again = need(make_estimate(gradient_checkpointing=True))
    assert found.train_seconds is not None and again.train_seconds == pytest.approx(4 / 3 * found.train_seconds)
    frozen = need(make_estimate(rank=16, gradient_checkpointing=True))
    assert frozen.train_seconds == pytest.approx(3 / 2 * found.train_seconds), "of one forward and one backward pass, not of three"
    two = need(make_estimate(workers=2), workers_per_trial=2)
    assert two.train_seconds == pytest.approx(found.train_seconds / 2)


def test_fp32_is_as_slow_as_the_card_is_in_fp32() -> None:
    """V100 and T4 have no other precision: their fp16 peak is eight times that of fp32."""
    found = need(make_estimate(rank=16, precision="fp32"), CARDS["t4"])
    assert found.train_seconds == pytest.approx(FLOPS / (8.1e12 * 0.35))
    # a decode step reads 4 bytes per weight
    reading = (4 * 1_235_814_400 + 64 * 125 * 16 * 2 * 8 * 64 * 4) / 0.32e12
    assert found.test_seconds == pytest.approx(32 * 50 * reading + 2000 * 2 * 1_235_814_400 * 100 / (8.1e12 * 0.35), rel=1e-6)


def test_sizes_that_follow_from_the_memory_are_no_remedy() -> None:
    estimate = make_estimate(LLAMA_8B, tokens=60_000, examples=64)
    assert estimate.demand is not None
    by_hand = need(estimate, CARDS["a100-40gb"])
    stages = tuple(replace(stage, automatic=True) for stage in estimate.demand.stages)
    automatic = need(replace(estimate, demand=replace(estimate.demand, stages=stages)), CARDS["a100-40gb"])
    assert by_hand.remedies[0].startswith("base.lora.r=16 base.optim.micro_batch_size=") and automatic.remedies[0] == "base.lora.r=16"


def test_adapters_are_no_remedy_for_a_first_stage() -> None:
    """It trains the whole network, whatever base.lora is."""
    estimate = make_estimate(LLAMA_8B)
    assert estimate.demand is not None
    nested = replace(estimate, demand=replace(estimate.demand, stages=2 * estimate.demand.stages))
    assert "base.lora" in "".join(need(estimate).remedies) and "base.lora" not in "".join(need(nested).remedies)


def test_hours_and_price_of_a_sweep() -> None:
    sweep = make_sweep(workers_per_trial=2, price_per_gpu_hour=3)
    needed = requirements(sweep, {"baseline/llama3": make_estimate(workers=2)}, H100)
    one = needed["baseline/llama3"]
    whole = cost(sweep, arms(sweep), needed)
    assert whole is not None and one.trial_seconds is not None and one.test_seconds is not None
    assert whole.hours == pytest.approx((12 * one.trial_seconds + 2 * one.test_seconds) / 3600)
    assert whole.gpu_hours == pytest.approx(2 * whole.hours) and whole.price == pytest.approx(3 * whole.gpu_hours)
    slower = requirements(sweep, {"baseline/llama3": make_estimate(workers=2)}, H100, Speed(mfu=0.175, evaluation=2.0))
    twice = cost(sweep, arms(sweep), slower)
    assert twice is not None and whole.hours < twice.hours <= 2.2 * whole.hours
    assert cost(sweep, arms(sweep), {}) is None
    unknown = requirements(sweep, {"baseline/llama3": make_estimate()}, replace(H100, peak=None))
    assert cost(sweep, arms(sweep), unknown) is None and unknown["baseline/llama3"].fits


@pytest.mark.parametrize(("precision", "refused"), [("bf16", True), ("auto", True), ("fp32", False)])
def test_a_card_without_bf16(precision: str, refused: bool) -> None:
    sweep = make_sweep(base={"model": {"precision": precision}})
    found = refusals(sweep, CARDS["v100"], {})
    assert bool(found) == refused
    assert all("V100 32 GB has no bf16" in sentence and "base.model.precision=fp32" in sentence for sentence in found)


def test_the_plan_s_lines() -> None:
    sweep = make_sweep(price_per_gpu_hour=2)
    estimates = {"baseline/llama3": make_estimate(tokens=60_000, examples=64)}
    text = budget.lines(sweep, arms(sweep), H100, requirements(sweep, estimates, H100))
    assert text[0] == "  hardware  H100 SXM, 76.3 GB for use; memory in GB per worker"
    assert "too large" in text[2] and "does not fit as configured; it does with base.optim.micro_batch_size=" in text[3]
    assert text[4].startswith("  time      about ") and "GPU-hours, price " in text[4] and "MFU of 0.35 (assumed" in text[4]
    nowhere = budget.lines(sweep, arms(sweep), None, requirements(sweep, estimates, None))
    assert "resources.hardware=h100" in nowhere[0] and len(nowhere) == 3
    assert budget.lines(sweep, arms(sweep), H100, {}) == []
    on_cpu = make_sweep(gpus_per_worker=0, hardware="h100")
    first = budget.lines(on_cpu, arms(on_cpu), None, requirements(on_cpu, estimates, None))[0]
    assert "CPU, because gpus_per_worker is 0; resources.gpus_per_worker=1 plans for hardware = h100" in first
    quick = {"baseline/llama3": replace(need(make_estimate()), train_seconds=0.1, evaluation_seconds=0.2, test_seconds=0.1)}
    text = budget.lines(sweep, arms(sweep), H100, quick)
    assert text[2].endswith("< 1 s") and "less than 0.01 h one trial at a time, less than 0.01 GPU-hours" in text[-1]


def test_memory_grows_with_every_input() -> None:
    sizes = [need(make_estimate(tokens=tokens)).memory.peak for tokens in (1600, 8000, 40_000)]
    assert all(small < large for small, large in itertools.pairwise(sizes))
