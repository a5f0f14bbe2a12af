"""OpenELM, which Transformers lacks: configuration and causal language model, registered with its Auto classes on import.

Source: OpenELM (arXiv 2404.14619), section 2.1, and the published checkpoints' config.json and tensor names, so that their weights
load without the Python code that comes with them (it breaks on Transformers 5). The architecture is distinguished by layer-wise
scaling: from the first to the last layer the number of attention heads follows `qkv_multipliers` and the feed-forward width
`ffn_multipliers`. One fused projection computes queries, keys and values; queries and keys are normalised per head before the
rotation; `num_gqa_groups` query heads share their keys and values.

Legend: B rows, T tokens, D model_dim, Q query heads, G key/value heads, H head size, F feed-forward width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb, eager_attention_forward
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from jepa_ray.models.shapes import openelm_feed_forward, openelm_heads

NORM_EPSILON = 1e-6


class OpenELMConfig(PreTrainedConfig):
    """The keys of the published config.json. `num_query_heads` and `num_kv_heads` follow from the multipliers if not given."""

    model_type = "openelm"
    keys_to_ignore_at_inference = ("past_key_values",)
    attribute_map = {  # noqa: RUF012 - as Transformers declares it
        "hidden_size": "model_dim",
        "num_hidden_layers": "num_transformer_layers",
        "max_position_embeddings": "max_context_length",
        "num_attention_heads": "num_query_heads",
        "num_key_value_heads": "num_kv_heads",
        "tie_word_embeddings": "share_input_output_layers",
    }

    vocab_size: int = 32000
    max_context_length: int = 2048
    num_transformer_layers: int = 12
    model_dim: int = 2048
    head_dim: int = 128
    qkv_multipliers: float | list[float] = 1.0
    num_query_heads: list[int] | None = None
    num_kv_heads: list[int] | None = None
    num_gqa_groups: int = 1
    """Query heads per key/value head."""
    ffn_multipliers: float | list[float] = 4.0
    ffn_with_glu: bool = True
    ffn_dim_divisor: int = 256
    activation_fn_name: str = "swish"
    normalization_layer_name: str = "rms_norm"
    normalize_qk_projections: bool = False
    share_input_output_layers: bool = False
    rope_freq_constant: int = 10000
    rope_max_length: int = 4096
    initializer_range: float = 0.02
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self, **kwargs: Any) -> None:
        if self.normalization_layer_name != "rms_norm":
            raise ValueError(f"normalization_layer_name must be 'rms_norm', not {self.normalization_layer_name!r}")
        layers = self.num_transformer_layers
        self.num_query_heads, self.num_kv_heads = openelm_heads(vars(self))
        if not len(self.num_query_heads) == len(self.num_kv_heads) == layers:
            raise ValueError(f"num_query_heads and num_kv_heads must have one entry for each of the {layers} layers")
        if any(query % kv for query, kv in zip(self.num_query_heads, self.num_kv_heads, strict=True)):
            raise ValueError("in every layer num_query_heads must be a multiple of num_kv_heads")
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    @property
    def intermediate_sizes(self) -> list[int]:
        """Feed-forward width of each layer."""
        return openelm_feed_forward(vars(self))


class OpenELMAttention(nn.Module):
    def __init__(self, config: OpenELMConfig, layer: int) -> None:
        super().__init__()
        assert config.num_query_heads is not None and config.num_kv_heads is not None
        self.config, self.layer_idx, self.head_dim = config, layer, config.head_dim
        self.query_heads, self.kv_heads = config.num_query_heads[layer], config.num_kv_heads[layer]
        self.num_key_value_groups = self.query_heads // self.kv_heads
        """Transformers' attention functions read this attribute."""
        self.is_causal = True
        self.qkv_proj = nn.Linear(config.model_dim, (self.query_heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.out_proj = nn.Linear(self.query_heads * self.head_dim, config.model_dim, bias=False)
        normed = config.normalize_qk_projections
        self.q_norm = LlamaRMSNorm(self.head_dim, eps=NORM_EPSILON) if normed else None
        self.k_norm = LlamaRMSNorm(self.head_dim, eps=NORM_EPSILON) if normed else None

    def forward(
        self,
        hidden_BTD: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: Cache | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        rows, tokens = hidden_BTD.shape[:2]
        fused = self.qkv_proj(hidden_BTD).view(rows, tokens, -1, self.head_dim).transpose(1, 2)
        query_BQTH, key_BGTH, value_BGTH = fused.split([self.query_heads, self.kv_heads, self.kv_heads], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            query_BQTH, key_BGTH = self.q_norm(query_BQTH), self.k_norm(key_BGTH)
        # Cosine, sine and the rotation are fp32, as in the published code, regardless of the weights' dtype.
        rotated = apply_rotary_pos_emb(query_BQTH, key_BGTH, *position_embeddings)
        query_BQTH, key_BGTH = (tensor.to(value_BGTH.dtype) for tensor in rotated)
        if past_key_values is not None:
            key_BGTH, value_BGTH = past_key_values.update(key_BGTH, value_BGTH, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        out_BTQH, weights = attend(
            self, query_BQTH, key_BGTH, value_BGTH, attention_mask, dropout=0.0, scaling=self.head_dim**-0.5, **kwargs
        )
        return self.out_proj(out_BTQH.reshape(rows, tokens, -1)), weights


class OpenELMFeedForward(nn.Module):
    def __init__(self, config: OpenELMConfig, layer: int) -> None:
        super().__init__()
        width = config.intermediate_sizes[layer]
        self.gated = config.ffn_with_glu
        self.proj_1 = nn.Linear(config.model_dim, 2 * width if self.gated else width, bias=False)
        self.proj_2 = nn.Linear(width, config.model_dim, bias=False)
        self.act = ACT2FN[config.activation_fn_name]

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        if self.gated:
            gate_BTF, value_BTF = self.proj_1(hidden_BTD).chunk(2, dim=-1)
            inner_BTF = self.act(gate_BTF) * value_BTF
        else:
            inner_BTF = self.act(self.proj_1(hidden_BTD))
        out: Tensor = self.proj_2(inner_BTF)
        return out


class OpenELMLayer(GradientCheckpointingLayer):
    def __init__(self, config: OpenELMConfig, layer: int) -> None:
        super().__init__()
        self.attn = OpenELMAttention(config, layer)
        self.ffn = OpenELMFeedForward(config, layer)
        self.attn_norm = LlamaRMSNorm(config.model_dim, eps=NORM_EPSILON)
        self.ffn_norm = LlamaRMSNorm(config.model_dim, eps=NORM_EPSILON)

    def forward(
        self,
        hidden_BTD: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        attended_BTD, _ = self.attn(self.attn_norm(hidden_BTD), position_embeddings, attention_mask, past_key_values, **kwargs)
        hidden_BTD = hidden_BTD + attended_BTD
        out: Tensor = hidden_BTD + self.ffn(self.ffn_norm(hidden_BTD))
        return out


class OpenELMPreTrainedModel(PreTrainedModel):
    config_class = OpenELMConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["OpenELMLayer"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": OpenELMLayer, "attentions": OpenELMAttention}  # noqa: RUF012


class OpenELMModel(OpenELMPreTrainedModel):
    def __init__(self, config: OpenELMConfig) -> None:
        super().__init__(config)
        self.token_embeddings = nn.Embedding(config.vocab_size, config.model_dim)
        self.layers = nn.ModuleList(OpenELMLayer(config, layer) for layer in range(config.num_transformer_layers))
        self.norm = LlamaRMSNorm(config.model_dim, eps=NORM_EPSILON)
        self.gradient_checkpointing = False
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        return self.token_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.token_embeddings = value  # type: ignore[assignment]

    def _rotation(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (B, T, H) in fp32. Not a buffer, which would have no values when a model is built without weights."""
        exponent = torch.arange(0, self.config.head_dim, 2, device=position_ids.device, dtype=torch.float32) / self.config.head_dim
        angles = position_ids[..., None].float() / self.config.rope_freq_constant**exponent
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    @merge_with_config_defaults  # type: ignore[untyped-decorator]
    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass either input_ids or inputs_embeds")
        hidden_BTD = self.token_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(hidden_BTD.shape[1], device=hidden_BTD.device) + seen)[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_BTD,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        rotation = self._rotation(position_ids)
        for layer in self.layers:
            hidden_BTD = layer(hidden_BTD, rotation, attention_mask=mask, past_key_values=past_key_values, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_BTD), past_key_values=past_key_values if use_cache else None)


class OpenELMForCausalLM(OpenELMPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "transformer.token_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: OpenELMConfig) -> None:
        super().__init__(config)
        self.transformer = OpenELMModel(config)
        self.lm_head = nn.Linear(config.model_dim, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        outputs = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.lm_head(outputs.last_hidden_state[:, kept, :])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits_BTV,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


AutoConfig.register("openelm", OpenELMConfig, exist_ok=True)
AutoModelForCausalLM.register(OpenELMConfig, OpenELMForCausalLM, exist_ok=True)
