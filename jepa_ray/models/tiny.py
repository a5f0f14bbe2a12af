"""Built-in tiny models: the family's real architecture at about 0.1M parameters, with a byte-level BPE tokenizer.

Everything is built from the training texts and the seed, in Hugging Face's format, so that the same code loads a tiny base and a
real checkpoint. `preparation/tiny_base.py` pre-trains it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, PreTrainedTokenizerFast

from jepa_ray.models import openelm  # noqa: F401 - registers itself with AutoConfig
from jepa_ray.models.families import ModelFamily

VOCAB_SIZE = 768


def tiny_tokenizer(family: ModelFamily, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of VOCAB_SIZE tokens trained on `texts`; any text can be encoded and decoded without loss."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(family.special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=family.bos,
        eos_token=family.turn_end,
        pad_token=family.pad,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = family.template
    return fast


def tiny_config(family: ModelFamily, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Transformers config of the family's tiny instance."""
    return AutoConfig.for_model(
        family.model_type,
        **family.tiny,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
