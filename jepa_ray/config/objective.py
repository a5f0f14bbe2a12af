"""The JEPA term of a trial: its knobs, and the combinations that are refused because they would not run as they read.

Imports pydantic and `space` only.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from jepa_ray.config.record import Record, show


class GradRatio(Record):
    """lambda set from the gradients of the first step: the JEPA term's gradient norm becomes this share of the cross-entropy's."""

    grad_ratio: float = Field(gt=0)
    """Gradient norm of the JEPA term as a share of the cross-entropy's gradient norm, at the first step."""


IN_SEQUENCE = ("tube", "tube_patch", "tube_ends", "tube_means", "curvature")
"""Layouts that read states of the training sequence itself and encode no views."""


class ObjectiveConfig(Record):
    """The JEPA term: lambda * d(Pred(Enc(Text)), Enc(Code)), added to gamma * cross-entropy (paper, eq. 1-2).

    Layout, readout, target encoder and distance can be chosen independently; see OBJECTIVES.md.
    """

    distance: Literal["cosine", "l2", "mse", "smooth_l1", "infonce"] = "cosine"
    """Distance d of the two embeddings. cosine: 1 - cosine. l2: L2 norm. mse: mean squared error. smooth_l1: mean Huber loss.
    infonce: InfoNCE against the other targets of the step."""
    lambda_: float | GradRatio = Field(1.0, alias="lambda")
    """Weight of the JEPA term: a number, or `{grad_ratio: 0.5}` to set it from gradients. 0 (at gamma = 1) is the baseline bit for bit."""
    lambda_effective: float | None = Field(None, gt=0)
    """Replaces `lambda`: fixes lambda * (1 - loss_dropout), which the paper's rule of thumb keeps constant. If null, `lambda` applies."""
    gamma: float = Field(1.0, ge=0)
    """Weight of the next-token cross-entropy."""
    k: int = Field(1, ge=0, le=64)
    """Number of predictor tokens; 0: none. In-sequence layouts and `target: stop_source` have none."""
    loss_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of optimizer steps that skip the JEPA term and the encoding of its views."""
    loss_dropout_mode: Literal["random", "periodic"] = "random"
    """random: each step is drawn independently. periodic: the term is active in every m-th step, m = 1 / (1 - loss_dropout), rounded."""
    lambda_warmup: float = Field(0.0, ge=0, lt=1)
    """Share of all steps over which lambda rises linearly from zero."""
    lambda_end: float = Field(1.0, ge=0)
    """Multiple of lambda at the last step, approached linearly after the warm-up. 1: lambda stays constant."""
    layout: Literal["append", "prepend", "reverse", "shared_prefix", "tube", "tube_patch", "tube_ends", "tube_means", "curvature"] = (
        "append"
    )
    """Where states come from. append, prepend: predictor tokens after or before the Text view. reverse: after the Code view (Code -> Text).
    shared_prefix: after the training sequence's own prompt. tube*, curvature: the training sequence itself (Semantic Tube, variants)."""
    readout: Literal["last", "mean"] = "last"
    """Embedding of a view. last: state of its last token. mean: mean state over its content tokens (and predictor tokens)."""
    layer: float = Field(1.0, gt=0, le=1)
    """Layer whose states are read, as a fraction of the number of layers, rounded. 1: the last layer."""
    final_norm: bool = True
    """true: read states after the model's final norm. false: before it."""
    target: Literal["online", "stop_target", "stop_source", "ema"] = "online"
    """Which side the term trains. online: both. stop_target: all but the target. stop_source: all but the source. ema: all but the target,
    which comes from an exponential moving average of the trained weights (under LoRA, of the adapters only)."""
    ema_momentum: float = Field(0.99, ge=0, lt=1)
    """Share of the moving average that is kept at each step (`target: ema`)."""
    ema_end: float | None = Field(None, ge=0, le=1)
    """Momentum at the last step, reached along a half cosine. If null, momentum is constant."""
    predictor: Literal["tokens", "linear", "mlp"] = "tokens"
    """tokens: the network itself predicts, through its predictor tokens. linear, mlp: additionally a trained map of the source state
    (in-sequence layouts: of the source difference)."""
    predictor_width: int | None = Field(None, ge=1)
    """Hidden units of `predictor: mlp`. If null, the width of the states."""
    predictor_lr_factor: float = Field(1.0, gt=0)
    """Factor on the learning rate of the predictor's own parameters: its map and the predictor tokens."""
    normalize: bool = False
    """Scale both states to length 1 before computing the distance."""
    temperature: float = Field(0.07, gt=0)
    """Temperature of InfoNCE, by which cosines are divided."""
    symmetric: bool = False
    """Average InfoNCE over both directions: each source among the targets, and each target among the sources."""
    gather: bool = True
    """true: InfoNCE's negatives and the regularisers' states come from all workers' shares of the step. false: each worker uses only
    its own share, so the loss depends on the number of workers."""
    variance: float = Field(0.0, ge=0)
    """Weight of VICReg's variance term, relative to the distance's weight. 0: off."""
    covariance: float = Field(0.0, ge=0)
    """Weight of VICReg's covariance term. 0: off."""
    sigreg: float = Field(0.0, ge=0)
    """Weight of SIGReg (LeJEPA, arXiv 2511.08544), which pulls states towards an isotropic Gaussian. 0: off."""
    control: Literal["none", "monitor", "zero", "shuffled", "constant_target"] = "none"
    """Makes the method a control. monitor: the term is measured without gradient. zero (or lambda_zero): computed in full but weighted 0.
    shuffled: pairs are exchanged among the examples of a step. constant_target: every target is the same fixed random state."""

    @property
    def fixed_lambda(self) -> float | None:
        """The weight lambda as a number. None if the gradients of the first step set it."""
        if self.lambda_effective is not None:
            return self.lambda_effective / self.active_share
        return None if isinstance(self.lambda_, GradRatio) else self.lambda_

    @property
    def active_share(self) -> float:
        """Share of optimizer steps in which the term is active."""
        if self.loss_dropout_mode == "periodic":
            return 1 / round(1 / (1 - self.loss_dropout))
        return 1 - self.loss_dropout

    @property
    def regularised(self) -> bool:
        """Whether the term includes a regulariser of the states' spread."""
        return bool(self.variance or self.covariance or self.sigreg)

    @property
    def compares_pairs(self) -> bool:
        """Whether the value of a pair depends on the other pairs of the step."""
        return self.distance == "infonce" or self.regularised

    @property
    def encodes_views(self) -> bool:
        """Whether views are encoded; in-sequence layouts encode none."""
        return self.layout not in IN_SEQUENCE

    @field_validator("lambda_")
    @classmethod
    def _not_negative(cls, value: float | GradRatio) -> float | GradRatio:
        if not isinstance(value, GradRatio) and value < 0:
            raise ValueError(f"must be at least 0, got {show(value)}")
        return value

    @field_validator("control", mode="before")
    @classmethod
    def _one_spelling(cls, value: Any) -> Any:
        return "zero" if value == "lambda_zero" else value

    @model_validator(mode="before")
    @classmethod
    def _no_tokens_in_sequence(cls, value: Any) -> Any:
        if isinstance(value, dict) and (value.get("layout") in IN_SEQUENCE or value.get("target") == "stop_source"):
            return {"k": 0, **value}
        return value

    @model_validator(mode="after")
    def _no_idle_knob(self) -> ObjectiveConfig:
        """Refuse a knob without effect, and a variant that is identical to another one."""
        reason = idle_knob(self)
        if reason is not None:
            raise ValueError(reason)
        return self


def idle_knob(objective: ObjectiveConfig) -> str | None:
    """Why a combination is refused. None if every knob has an effect."""
    defaults = {name: field.default for name, field in ObjectiveConfig.model_fields.items()}
    changed = {name for name, default in defaults.items() if getattr(objective, name) != default}
    symmetric_distance = objective.distance != "infonce" or objective.symmetric
    same_sides = objective.target == "online" and objective.predictor == "tokens" and objective.control != "constant_target"
    if objective.encodes_views:
        if objective.layout == "prepend" and objective.k == 0:
            return "layout prepend with k = 0 is layout append with k = 0, since there is nothing to prepend; set k, or layout: append"
        if objective.layout == "reverse" and objective.k == 0 and symmetric_distance and same_sides:
            return (
                "layout reverse with k = 0 and a symmetric distance is layout append, since both sides are alike; set k, or layout: append"
            )
    else:
        for name in ("readout", "k"):
            if name in changed and (name != "k" or objective.k):
                return f"{name} has no effect with layout {objective.layout}, which encodes no views; drop it"
        if objective.control == "shuffled":
            return f"layout {objective.layout} pairs states of one sequence, so there are no pairs to exchange; drop control: shuffled"
        if objective.target == "ema" or objective.control == "constant_target":
            setting = "target: ema" if objective.target == "ema" else "control: constant_target"
            return f"{setting} needs a separate target, which layout {objective.layout} does not have; drop it"
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
                return f"{name} has no effect without {condition}; drop it, or set the latter"
    if objective.target == "stop_source" and (objective.predictor != "tokens" or "predictor_lr_factor" in changed):
        return "target stop_source trains only the target side, so no predictor learns; drop the predictor, or set target: online"
    if objective.control == "constant_target" and objective.target != "online":
        return f"control constant_target replaces the target, so target: {objective.target} has no effect; drop it"
    if objective.loss_dropout_mode == "periodic" and objective.active_share == 1:
        return (
            f"loss_dropout {objective.loss_dropout:g} in periodic mode skips no step: 1 / (1 - loss_dropout) rounds to 1; set at least 0.34"
        )
    if objective.gamma == 0 and (isinstance(objective.lambda_, GradRatio) or objective.fixed_lambda == 0):
        return "gamma = 0 leaves nothing to train, or no gradient to set lambda by; give lambda as a number above 0"
    if objective.distance == "infonce" and objective.control == "constant_target" and not objective.symmetric:
        return "control constant_target makes all targets equal, so infonce has no effect (no gradient); use another distance"
    if objective.target == "stop_source" and objective.k > 0:
        return "target stop_source trains no predictor tokens, so they would stay random; set k: 0"
    if isinstance(objective.lambda_, GradRatio) and objective.control in ("monitor", "zero"):
        return f"control {objective.control} gives the term weight 0, so lambda: grad_ratio has no effect; drop it"
    if "lambda_" in changed and objective.lambda_effective is not None:
        return "lambda and lambda_effective are both given, but one follows from the other; drop one"
    return None


MASKED_OBJECTIVE = {"distance": "cosine", "target": "ema", "predictor": "mlp", "k": 0}
"""Fixed settings of a masked encoder's JEPA term."""
MASKED_KNOBS = ("lambda", "gamma", "ema_momentum", "ema_end", "predictor_width", "predictor_lr_factor")
"""Settings of a masked encoder's JEPA term that may vary."""


def masked_misfit(objective: ObjectiveConfig) -> str | None:
    """Why a masked encoder cannot be trained with an objective. None if it can."""
    fixed = ", ".join(f"{name}: {value}" for name, value in MASKED_OBJECTIVE.items())
    for name, field in ObjectiveConfig.model_fields.items():
        alias, value = field.alias or name, getattr(objective, name)
        if alias in MASKED_OBJECTIVE and value != MASKED_OBJECTIVE[alias]:
            return f"{alias} = {show(value)}, but with base.masked the JEPA term has {{{fixed}}}; write these four"
        if alias not in (*MASKED_OBJECTIVE, *MASKED_KNOBS) and value != field.default:
            return f"{alias} has no effect with base.masked, whose JEPA term takes {', '.join(MASKED_KNOBS)}; drop it"
    if isinstance(objective.lambda_, GradRatio):
        return "lambda: grad_ratio is not supported with base.masked; give a number"
    return None
