"""The JEPA term of a trial: which knobs there are, and which combinations would run as something else than they say.

Imports pydantic and `space` only.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from jepa_ray.config.record import Record, show


class GradRatio(Record):
    """lambda from the gradients: such that at the first step the JEPA term's gradient has this share of the cross-entropy's norm."""

    grad_ratio: float = Field(gt=0)
    """Norm of the JEPA term's gradient as a share of the cross-entropy's, at the first step."""


IN_SEQUENCE = ("tube", "tube_patch", "tube_ends", "tube_means", "curvature")
"""Layouts that read states off the training sequence itself and encode no views."""


class ObjectiveConfig(Record):
    """The JEPA term: lambda * d(Pred(Enc(Text)), Enc(Code)), added to gamma * cross-entropy (paper, eq. 1-2).

    What is encoded, where it is read, by which encoder, and how far apart two states are can each be chosen by itself: see OBJECTIVES.md.
    """

    distance: Literal["cosine", "l2", "mse", "smooth_l1", "infonce"] = "cosine"
    """d of the two embeddings: 1 - cosine, L2 norm, mean squared error, mean Huber loss, or InfoNCE against the step's other targets."""
    lambda_: float | GradRatio = Field(1.0, alias="lambda")
    """Weight of the JEPA term; or `{grad_ratio: 0.5}`. 0 (at gamma = 1) is the baseline, bit for bit."""
    lambda_effective: float | None = Field(None, gt=0)
    """In place of lambda: lambda * (1 - loss_dropout), which the paper's rule of thumb keeps constant."""
    gamma: float = Field(1.0, ge=0)
    """Weight of the next-token cross-entropy."""
    k: int = Field(1, ge=0, le=64)
    """Predictor tokens; 0: none. (In-sequence layouts and `target: stop_source` have none.)"""
    loss_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of optimizer steps that skip the JEPA term, and with it the encoding of the views."""
    loss_dropout_mode: Literal["random", "periodic"] = "random"
    """random: each step by itself. periodic: the term is active in every m-th step, m = 1 / (1 - loss_dropout), rounded."""
    lambda_warmup: float = Field(0.0, ge=0, lt=1)
    """Share of all steps over which lambda rises linearly from zero."""
    lambda_end: float = Field(1.0, ge=0)
    """Multiple of lambda at the last step; after the warm-up it moves there linearly. 1: it stays."""
    layout: Literal["append", "prepend", "reverse", "shared_prefix", "tube", "tube_patch", "tube_ends", "tube_means", "curvature"] = (
        "append"
    )
    """What is encoded: predictor tokens after the Text view, before it, after the Code view (Code -> Text), or after the training
    sequence's own prompt; or states of the training sequence itself (Semantic Tube and its variants)."""
    readout: Literal["last", "mean"] = "last"
    """A view's embedding: the state of its last token, or the mean over its content tokens (and predictor tokens)."""
    layer: float = Field(1.0, gt=0, le=1)
    """Depth of the states that are read, as a fraction of the layers, rounded."""
    final_norm: bool = True
    """Read states after the model's final norm, or before it."""
    target: Literal["online", "stop_target", "stop_source", "ema"] = "online"
    """Which side the term trains: both, all but the target, all but the source; or the target comes from an exponential moving average of
    the trained weights (adapters only under LoRA), without gradient."""
    ema_momentum: float = Field(0.99, ge=0, lt=1)
    """Share of the average that each step keeps."""
    ema_end: float | None = Field(None, ge=0, le=1)
    """Momentum at the last step, reached along a half cosine; None: constant."""
    predictor: Literal["tokens", "linear", "mlp"] = "tokens"
    """tokens: the network itself, through its predictor tokens. linear, mlp: besides, a trained map of the source state (of in-sequence
    layouts: of the source difference)."""
    predictor_width: int | None = Field(None, ge=1)
    """Hidden units of the mlp; None: as wide as the states."""
    predictor_lr_factor: float = Field(1.0, gt=0)
    """Multiple of the learning rate for what the predictor alone trains: its map and the predictor tokens."""
    normalize: bool = False
    """Scale both states to length 1 before the distance."""
    temperature: float = Field(0.07, gt=0)
    """InfoNCE: cosines are divided by it."""
    symmetric: bool = False
    """InfoNCE: the mean of both directions, source among targets and target among sources."""
    gather: bool = True
    """InfoNCE's negatives and the regularisers' states come from all workers' shares of the step. false: each worker uses its own share, so
    that the loss depends on their number."""
    variance: float = Field(0.0, ge=0)
    """Weight of VICReg's variance term, relative to the distance's."""
    covariance: float = Field(0.0, ge=0)
    """Weight of VICReg's covariance term."""
    sigreg: float = Field(0.0, ge=0)
    """Weight of SIGReg (LeJEPA, arXiv 2511.08544): states are drawn towards an isotropic Gaussian."""
    control: Literal["none", "monitor", "zero", "shuffled", "constant_target"] = "none"
    """monitor: the term is measured, without gradient. zero: it is computed in full and weighted 0. shuffled: pairs are exchanged among the
    examples of a step. constant_target: every target is the same fixed random state."""

    @property
    def fixed_lambda(self) -> float | None:
        """The weight lambda as a number; None where the first step's gradients decide it."""
        if self.lambda_effective is not None:
            return self.lambda_effective / self.active_share
        return None if isinstance(self.lambda_, GradRatio) else self.lambda_

    @property
    def active_share(self) -> float:
        """Share of steps in which the term is active."""
        if self.loss_dropout_mode == "periodic":
            return 1 / round(1 / (1 - self.loss_dropout))
        return 1 - self.loss_dropout

    @property
    def regularised(self) -> bool:
        """Whether the spread of the states is part of the term."""
        return bool(self.variance or self.covariance or self.sigreg)

    @property
    def compares_pairs(self) -> bool:
        """Whether a pair's value depends on the step's other pairs."""
        return self.distance == "infonce" or self.regularised

    @property
    def encodes_views(self) -> bool:
        """Whether the two views are encoded by themselves."""
        return self.layout not in IN_SEQUENCE

    @field_validator("lambda_")
    @classmethod
    def _not_negative(cls, value: float | GradRatio) -> float | GradRatio:
        if not isinstance(value, GradRatio) and value < 0:
            raise ValueError(f"must be at least 0, got {show(value)}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _no_tokens_in_sequence(cls, value: Any) -> Any:
        if isinstance(value, dict) and (value.get("layout") in IN_SEQUENCE or value.get("target") == "stop_source"):
            return {"k": 0, **value}
        return value

    @model_validator(mode="after")
    def _no_idle_knob(self) -> ObjectiveConfig:
        """Refuse what would run as something else than it says: a knob without effect, or a variant that is another one."""
        reason = idle_knob(self)
        if reason is not None:
            raise ValueError(reason)
        return self


def idle_knob(objective: ObjectiveConfig) -> str | None:
    """Why a combination is refused; None where every knob has its effect."""
    own = {name: field.default for name, field in ObjectiveConfig.model_fields.items()}
    changed = {name for name, default in own.items() if getattr(objective, name) != default}
    symmetric_distance = objective.distance != "infonce" or objective.symmetric
    same_sides = objective.target == "online" and objective.predictor == "tokens" and objective.control != "constant_target"
    if objective.encodes_views:
        if objective.layout == "prepend" and objective.k == 0:
            return "layout prepend with k = 0 is layout append with k = 0: there is nothing to prepend; set k, or layout: append"
        if objective.layout == "reverse" and objective.k == 0 and symmetric_distance and same_sides:
            return (
                "layout reverse with k = 0 and a symmetric distance is layout append: the two sides do not differ; set k, or layout: append"
            )
    else:
        for name in ("readout", "k"):
            if name in changed and (name != "k" or objective.k):
                return f"{name} has no effect with layout {objective.layout}, which encodes no views; drop it"
        if objective.control == "shuffled":
            return f"layout {objective.layout} pairs states of one sequence, so there are no pairs to exchange; drop control: shuffled"
        if objective.target == "ema" or objective.control == "constant_target":
            asked = "target: ema" if objective.target == "ema" else "a constant target"
            return f"layout {objective.layout} has no target of its own for {asked}"
    needs = (
        (("temperature", "symmetric"), objective.distance == "infonce", "distance: infonce"),
        (("gather",), objective.compares_pairs, "distance: infonce or a regulariser (variance, covariance, sigreg)"),
        (("ema_momentum", "ema_end"), objective.target == "ema", "target: ema"),
        (("predictor_width",), objective.predictor == "mlp", "predictor: mlp"),
        (("predictor_lr_factor",), objective.predictor != "tokens" or objective.k > 0, "a predictor (k above 0, or predictor: mlp)"),
        (("loss_dropout_mode",), objective.loss_dropout > 0, "loss_dropout above 0"),
        (("normalize",), objective.distance not in ("cosine", "infonce"), "a distance that depends on length (l2, mse, smooth_l1)"),
    )
    for names, met, condition in needs:
        for name in names:
            if name in changed and not met:
                return f"{name} has no effect without {condition}; drop it, or set that"
    if objective.target == "stop_source" and (objective.predictor != "tokens" or "predictor_lr_factor" in changed):
        return "target stop_source trains the target side only, so that no predictor learns; drop the predictor, or set target: online"
    if objective.control == "constant_target" and objective.target != "online":
        return f"control constant_target replaces the target, so target: {objective.target} has no effect; drop it"
    if objective.loss_dropout_mode == "periodic" and objective.active_share == 1:
        return (
            f"loss_dropout {objective.loss_dropout:g} in periodic mode skips no step: 1 / (1 - loss_dropout) rounds to 1; set at least 0.34"
        )
    if objective.gamma == 0 and (isinstance(objective.lambda_, GradRatio) or objective.fixed_lambda == 0):
        return "gamma = 0 leaves nothing to train, or nothing to set lambda by; give lambda as a number above 0"
    if objective.distance == "infonce" and objective.control == "constant_target" and not objective.symmetric:
        return "control constant_target makes all targets equal, so infonce has no effect (no gradient); use another distance"
    if objective.target == "stop_source" and objective.k > 0:
        return "target stop_source trains no predictor token, so that k reads a random one; set k: 0"
    if isinstance(objective.lambda_, GradRatio) and objective.control in ("monitor", "zero"):
        return f"control {objective.control} weighs the term with 0, so lambda: grad_ratio has no effect; drop it"
    if "lambda_" in changed and objective.lambda_effective is not None:
        return "lambda and lambda_effective are given, but one follows from the other; drop one"
    return None


MASKED_OBJECTIVE = {"distance": "cosine", "target": "ema", "predictor": "mlp", "k": 0}
"""What the JEPA term of a masked encoder always is."""
MASKED_KNOBS = ("lambda", "gamma", "ema_momentum", "ema_end", "predictor_width", "predictor_lr_factor")
"""What it leaves open."""


def masked_misfit(objective: ObjectiveConfig) -> str | None:
    """Why a masked encoder cannot be trained with an objective; None where it can."""
    fixed = ", ".join(f"{name}: {value}" for name, value in MASKED_OBJECTIVE.items())
    for name, field in ObjectiveConfig.model_fields.items():
        alias, value = field.alias or name, getattr(objective, name)
        if alias in MASKED_OBJECTIVE and value != MASKED_OBJECTIVE[alias]:
            return f"{alias} = {show(value)}, but with base.masked the JEPA term has {{{fixed}}}; write those four"
        if alias not in (*MASKED_OBJECTIVE, *MASKED_KNOBS) and value != field.default:
            return f"{alias} has no effect with base.masked, where the JEPA term has {', '.join(MASKED_KNOBS)}; drop it"
    if isinstance(objective.lambda_, GradRatio):
        return "lambda from gradients is not there with base.masked; give a number"
    return None
