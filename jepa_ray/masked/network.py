"""Masked encoders: built-in tiny instances, loading, and the network of the masked step.

    context = encoder(passage with [MASK] at hidden tokens)        at the hidden tokens: states (M, D)
    logits  = head(context)                                        the masked-language model's own head, for the cross-entropy
    source  = predictor(context)                                   a separate MLP with its own width, for the JEPA term

The target encoder, an average of the encoder that sees the intact passage, is not part of the network: see `step.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast

from jepa_ray.config import ModelConfig
from jepa_ray.models.encoders import EncoderFamily, get_encoder
from jepa_ray.models.loading import from_hub, read_tokenizer, seeded
from jepa_ray.streams import derive_seed

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Special tokens of the built-in tokenizer, in BERT's order."""
TINY_WORDS = 1500
"""Whole words in the built-in vocabulary, the most frequent ones; other words are split into characters."""


def tiny_wordpiece(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer like BERT's (lower case, WordPiece) with the words of `texts`, regardless of their order.

    The vocabulary is counted here, because the library's trainer does not guarantee the same one twice.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    characters = sorted(set("".join(counts)))
    words = sorted(counts, key=lambda word: (-counts[word], word))[:TINY_WORDS]
    pieces = dict.fromkeys([*SPECIAL, *characters, *(f"##{character}" for character in characters), *words])
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, splitter, decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, SPECIAL.index(token)) for token in ("[CLS]", "[SEP]")]
    )
    names = {f"{token[1:-1].lower()}_token": token for token in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)


def tiny_encoder_config(family: EncoderFamily, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Transformers config of the family's tiny instance."""
    return AutoConfig.for_model(family.model_type, **family.tiny, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)


def load_encoder_config(checkpoint: str, model: ModelConfig, revision: str | None = None) -> Any:
    """The checkpoint's Transformers config, checked against the family."""
    family = get_encoder(model.family)
    config = from_hub(AutoConfig.from_pretrained, checkpoint, revision, trust_remote_code=model.trust_remote_code)
    if config.model_type != family.model_type:
        raise ValueError(
            f"{checkpoint} contains a {config.model_type!r} model, but family {family.name} is the masked encoder {family.model_type!r}; "
            f"change one of them, or drop base.masked to train a causal model"
        )
    return config


def load_encoder_tokenizer(checkpoint: str, model: ModelConfig, revision: str | None = None) -> Any:
    """The checkpoint's tokenizer; ValueError if it has no mask or padding token."""
    tokenizer = from_hub(read_tokenizer, checkpoint, revision, trust_remote_code=model.trust_remote_code)
    for name in ("mask_token", "pad_token"):
        if getattr(tokenizer, name, None) is None:
            raise ValueError(f"the tokenizer of {checkpoint} has no {name.replace('_', ' ')}; is this a masked encoder?")
    return tokenizer


def load_masked_lm(checkpoint: str, model: ModelConfig, seed: int, revision: str | None = None) -> Any:
    """A Transformers masked-language model in fp32; new weights are drawn from the seed's stream "initial weights".

    With `init: random` all weights are new; otherwise the head is, if the checkpoint contains only the encoder.
    """
    config = load_encoder_config(checkpoint, model, revision)
    with seeded(derive_seed(seed, "initial weights")):
        if model.init == "random":
            lm = AutoModelForMaskedLM.from_config(config, dtype=torch.float32, trust_remote_code=model.trust_remote_code)
        else:
            lm, loading_info = from_hub(
                AutoModelForMaskedLM.from_pretrained,
                checkpoint,
                revision,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=model.trust_remote_code,
                output_loading_info=True,
            )
            if missing := sorted(key for key in loading_info["missing_keys"] if key.startswith(f"{lm.base_model_prefix}.")):
                raise ValueError(
                    f"{checkpoint} lacks {len(missing)} of the encoder's weights ({', '.join(missing[:3])}...); check the family and that "
                    f"the download is complete, or set base.model.init=random to train from scratch"
                )
    if model.gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return lm


class MaskedNetwork(nn.Module):
    """A masked-language model, and the predictor of the JEPA term if there is one. The head is only trained if `with_head`."""

    def __init__(self, lm: Any, family: EncoderFamily, predictor: nn.Module | None, with_head: bool) -> None:
        super().__init__()
        self.lm = lm
        """A Transformers masked-language model."""
        self.predictor = predictor
        self.with_head = with_head
        self._head = family.head
        if not with_head:
            shared = {id(parameter) for parameter in self.encoder.parameters()}  # the embeddings may also be the head's last layer
            for name in family.head:
                for parameter in getattr(lm, name).parameters():
                    parameter.requires_grad_(id(parameter) in shared)

    @property
    def encoder(self) -> Any:
        """The encoder alone."""
        return self.lm.base_model

    @property
    def device(self) -> torch.device:
        device: torch.device = self.lm.device
        return device

    def forward(self, hidden_RT: Tensor, real_RT: Tensor, index_M: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """At the hidden tokens: (M, V) logits and (M, D) predicted states of the target encoder; None without head or predictor."""
        context_MD = states(self.encoder, hidden_RT, real_RT).flatten(0, 1)[index_M]
        return self.logits(context_MD) if self.with_head else None, self.predictor(context_MD) if self.predictor is not None else None

    def logits(self, states_MD: Tensor) -> Tensor:
        """(M, V) logits of the masked-language model's head, in fp32."""
        for name in self._head:
            states_MD = getattr(self.lm, name)(states_MD)
        return states_MD.float()


def states(encoder: Any, input_ids_RT: Tensor, real_RT: Tensor) -> Tensor:
    """(R, T, D) last hidden states; no token attends to padding."""
    hidden_RTD: Tensor = encoder(input_ids=input_ids_RT, attention_mask=real_RT).last_hidden_state
    return hidden_RTD
