"""Checkpoints: tokenizer and network from the built-in tiny base, a local folder or a hub id, through one code path.

Weights are read only from safetensors (no pickle), and code that comes with a checkpoint runs only if the user allows it.
"""

from __future__ import annotations

import json
import warnings
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging
from transformers.utils.hub import cached_file, has_file

from jepa_ray.config import LoraConfig, ModelConfig
from jepa_ray.models import openelm  # noqa: F401 - registers itself with the Auto classes
from jepa_ray.models.families import AUTO, PINNED_DAY, PLAIN_TEMPLATE, ModelFamily, get_family
from jepa_ray.models.folders import fault_of
from jepa_ray.models.network import Network
from jepa_ray.models.structure import refuse, structure_of
from jepa_ray.streams import derive_seed
from jepa_ray.system.hub import local_only_if_unreachable

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
"""A checkpoint with none of these has no tokenizer."""
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
"""A checkpoint keeps its weights in one file, or in the files that the index names."""


def load_tokenizer(checkpoint: str, model: ModelConfig, revision: str | None = None) -> Any:
    """The checkpoint's tokenizer. The family's template, or the family's tokenizer, is used if the checkpoint has none.

    ValueError with one sentence if it cannot be read, or is a slow one.
    """
    if model.family == AUTO:
        tokenizer = _fast(from_hub(read_tokenizer, checkpoint, revision, trust_remote_code=model.trust_remote_code), checkpoint)
        return _with_template(tokenizer, checkpoint)
    family = get_family(model.family)
    source = checkpoint
    if family.tokenizer_model is not None and not from_hub(_has_tokenizer, checkpoint, revision):
        source, revision = family.tokenizer_model, None
    try:
        tokenizer = _fast(from_hub(read_tokenizer, source, revision, trust_remote_code=model.trust_remote_code), source)
    except ValueError as error:
        if source == checkpoint:
            raise
        raise ValueError(
            f"{error}; it is needed because {checkpoint} contains no tokenizer (one saved into the checkpoint's folder is used instead)"
        ) from error
    if not tokenizer.chat_template:
        tokenizer.chat_template = family.template
    vocabulary = tokenizer.get_vocab()  # an id does not tell: `unk_token` may itself be the token that is looked up
    for token, role in ((family.turn_end, "the end of turn"), (family.bos, "the beginning of sequence")):
        if token is not None and token not in vocabulary:
            raise ValueError(
                f"the tokenizer of {source} does not contain {token!r}, {role} in family {family.name}; name the right family, "
                f"or let it be found with families=[auto]"
            )
    return tokenizer


def _fast(tokenizer: Any, checkpoint: str) -> Any:
    """The tokenizer. ValueError if it is one of those in Python, which do not tell where in a text a token is."""
    if getattr(tokenizer, "is_fast", False):
        return tokenizer
    raise ValueError(
        f"the tokenizer of {checkpoint} ({type(tokenizer).__name__}) gives no character offsets (a slow tokenizer), by which readouts are "
        f"located; the checkpoint needs a tokenizer.json"
    )


def _with_template(tokenizer: Any, checkpoint: str) -> Any:
    """The tokenizer with a chat template that renders the same text on any day: its own, or PLAIN_TEMPLATE.

    ValueError if it can have none.
    """
    template = tokenizer.get_chat_template() if tokenizer.chat_template else PLAIN_TEMPLATE
    if template == PLAIN_TEMPLATE and not tokenizer.eos_token:
        raise ValueError(
            f"{checkpoint} contains no chat template, and its tokenizer has no end-of-text token with which a plain one could end an "
            f"answer; add chat_template.jinja to the folder, or name a family"
        )
    pinned = "strftime_now" not in template or template.startswith(PINNED_DAY)
    tokenizer.chat_template = template if pinned else PINNED_DAY + template
    return tokenizer


def _has_tokenizer(checkpoint: str, **pinned: Any) -> bool:
    return any(_has(checkpoint, name, **pinned) for name in TOKENIZER_FILES)


def _has(checkpoint: str, name: str, **pinned: Any) -> bool:
    """Whether a folder, a repository or the local cache of a repository has the file. A repository's file is downloaded."""
    return cached_file(checkpoint, name, _raise_exceptions_for_missing_entries=False, **pinned) is not None


def read_tokenizer(checkpoint: str, *, trust_remote_code: bool, **pinned: Any) -> Any:
    """The tokenizer of tokenizer.json if it exists: for some architectures (qwen2) AutoTokenizer rebuilds it by its own rules."""
    if _has(checkpoint, "tokenizer.json", **pinned):
        return PreTrainedTokenizerFast.from_pretrained(checkpoint, **pinned)
    try:
        return AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=trust_remote_code, **pinned)
    except (ImportError, ValueError) as error:  # a library for the other forms is missing, or there is none of them
        why, *details = str(error).strip().split("\n")
        lines = [f"it contains no tokenizer.json, and its other files give no tokenizer: {why.rstrip(': ')}", *details]
        raise ValueError("\n".join(lines)) from error


def commit_of(checkpoint: str, config: Any) -> str | None:
    """The commit of a hub repository that `config` was read from; everything loaded later uses it as `revision`. None for a folder."""
    commit = None if Path(checkpoint).is_dir() else getattr(config, "_commit_hash", None)
    return str(commit) if commit else None


def check_weights(checkpoint: str, model: ModelConfig, revision: str | None = None) -> None:
    """ValueError if a file with the checkpoint's weights is missing or, in a folder, truncated or damaged; only headers are read.
    `init: random` needs no weights."""
    if model.init == "random":
        return
    names, missing = from_hub(_weight_files, checkpoint, revision)
    if missing:
        named = ", ".join(missing[:3]) + ("..." if len(missing) > 3 else "")
        raise ValueError(
            f"{checkpoint} lacks {len(missing)} of the weight files that its {WEIGHTS_INDEX} names ({named}); "
            f"complete the download, or train from scratch with base.model.init=random"
        )
    for name in names if Path(checkpoint).is_dir() else ():
        try:
            with safe_open(Path(checkpoint) / name, framework="numpy"):
                pass  # opening compares the sizes in the header with that of the file
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{name} in {checkpoint} is truncated or damaged ({error}); download or copy it again") from error


def _weight_files(checkpoint: str, **pinned: Any) -> tuple[list[str], list[str]]:
    """(the files with the weights, those of them that do not exist). OSError if there is neither a single file nor a valid index."""
    if _known(checkpoint, WEIGHTS, **pinned):
        return [WEIGHTS], []
    index = cached_file(checkpoint, WEIGHTS_INDEX, _raise_exceptions_for_missing_entries=False, **pinned)
    if index is None:
        raise OSError(f"no file named {WEIGHTS}")
    try:
        shards = sorted({str(name) for name in json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(f"{WEIGHTS_INDEX} is not an index of weight files") from error
    if not shards:
        raise OSError(f"{WEIGHTS_INDEX} names no weight files")
    return shards, [name for name in shards if not _known(checkpoint, name, **pinned)]


def _known(checkpoint: str, name: str, **pinned: Any) -> bool:
    """Whether a folder or a repository has the file, without downloading it."""
    try:
        return bool(has_file(checkpoint, name, **pinned))
    except (OSError, ValueError):
        raise
    except Exception as error:  # errors of the HTTP client, which share no base class with these
        raise OSError(f"cannot look up {name}: {error}") from error


def load_config(checkpoint: str, model: ModelConfig, revision: str | None = None) -> Any:
    """The checkpoint's Transformers config, checked against the family."""
    config = from_hub(AutoConfig.from_pretrained, checkpoint, revision, trust_remote_code=model.trust_remote_code)
    if model.family == AUTO:
        refuse(config, checkpoint)
        return config
    family = get_family(model.family)
    if config.model_type != family.model_type:
        raise ValueError(
            f"{checkpoint} contains a {config.model_type!r} model, but family {family.name} is {family.model_type!r}; change one of them"
        )
    return config


def check_rows(tokenizer: Any, config: Any, checkpoint: str) -> None:
    """ValueError unless every token has a row in the embedding table: training would fail at the first token without one."""
    last, rows = max(tokenizer.get_vocab().values(), default=-1), int(config.vocab_size)
    if last >= rows:
        raise ValueError(
            f"the tokenizer of {checkpoint} has token ids up to {last}, but the model has {rows} rows of embeddings; use the tokenizer "
            f"that the model was trained with, or enlarge the model (resize_token_embeddings) and save both"
        )


def load_network(
    checkpoint: str,
    model: ModelConfig,
    lora: LoraConfig | None,
    *,
    k: int,
    seed: int,
    device: torch.device | str = "cpu",
    revision: str | None = None,
) -> Network:
    """The network to train: weights, adapters and k predictor tokens. New weights are drawn from the seed's own streams.

    `revision` is the commit of a hub repository; None: the newest.
    With bf16 (on a GPU by default, see `uses_bf16`) frozen weights are bf16 and trained weights fp32, and autocast computes in bf16;
    without it everything is fp32.
    """
    family = get_family(model.family) if model.family != AUTO else None
    config = load_config(checkpoint, model, revision)
    device = torch.device(device)
    half = uses_bf16(model, device)
    dtype = torch.bfloat16 if half and lora is not None else torch.float32
    if model.init == "random":
        with seeded(derive_seed(seed, "initial weights")):
            lm = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=model.trust_remote_code)
    else:
        lm, loading_info = from_hub(
            AutoModelForCausalLM.from_pretrained,
            checkpoint,
            revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=model.trust_remote_code,
            output_loading_info=True,
        )
        if missing := sorted(loading_info["missing_keys"]):  # Transformers would draw them at random and only warn
            raise ValueError(
                f"{checkpoint} lacks {len(missing)} of the model's weights ({', '.join(missing[:3])}...); check that the family is "
                f"right and the download complete, or train from scratch with base.model.init=random"
            )
    lm.config.use_cache = False
    predictor = new_predictor(lm, k, seed) if k else None
    if model.gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if lora is not None:
        lm = add_lora(lm, family, lora, seed)
    return Network(lm, predictor).to(device)


def uses_bf16(model: ModelConfig, device: torch.device) -> bool:
    """Whether computation runs in bf16 under autocast."""
    return model.precision == "bf16" or (model.precision == "auto" and device.type == "cuda")


def add_lora(lm: Any, family: ModelFamily | None, lora: LoraConfig, seed: int) -> Any:
    """Adapters on every linear layer of the family; their initial values come from the stream "adapters".

    `family` None: on every linear layer that the network has; ValueError if it has matrices that are none.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    targets = family.lora_targets if family is not None else structure_of(lm).targets()
    settings = PeftLoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha if lora.alpha is not None else 2 * lora.r,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=list(targets),
        task_type="CAUSAL_LM",
    )
    with seeded(derive_seed(seed, "adapters")), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about PEFT's use of Transformers; users cannot act on it
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")  # GPT-2's layers are transposed; PEFT sees that itself
        adapted = get_peft_model(lm, settings)
    # PEFT makes a set of them, which it would save in an order that differs from process to process.
    settings.target_modules = sorted(targets)
    return adapted


def new_predictor(lm: Any, k: int, seed: int) -> Tensor:
    """(k, D) initial predictor tokens, drawn like typical rows of the embedding table: normal, with the vocabulary's mean and spread."""
    with torch.no_grad():
        embedded_VD: Tensor = lm.get_input_embeddings().weight.float()
        generator = torch.Generator().manual_seed(derive_seed(seed, "predictor tokens"))
        noise_kD = torch.randn(k, embedded_VD.shape[1], generator=generator)
        return embedded_VD.mean(0) + embedded_VD.std(0) * noise_kD


class seeded:
    """Context manager that seeds torch's global generator with `seed` and restores its state on exit."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self._fork = torch.random.fork_rng(devices=[])
        self._fork.__enter__()
        torch.manual_seed(self.seed)

    def __exit__(self, *exception: Any) -> None:
        self._fork.__exit__(*exception)


def from_hub(load: Any, checkpoint: str, revision: str | None = None, **kwargs: Any) -> Any:
    """Call a `from_pretrained` without progress bars; errors become a ValueError of one sentence with its remedy.

    `revision`: the commit of a hub repository; None: a folder, or the newest commit.
    """
    kwargs |= {"revision": revision} if revision is not None else {}
    if not Path(checkpoint).is_dir():
        local_only_if_unreachable()
    logging.disable_progress_bar()
    getLogger("huggingface_hub").setLevel("ERROR")  # it would report every retry of an unreachable hub
    try:
        return load(checkpoint, **kwargs)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a config with odd values fails anywhere in the libraries
        raise ValueError(_sentence(checkpoint, error)) from error


def _sentence(checkpoint: str, error: Exception) -> str:
    """What went wrong with a checkpoint, and the remedy. Only the libraries' messages distinguish the cases."""
    if fault := fault_of(checkpoint):
        return fault
    message = str(error).strip()
    first = message.splitlines()[0] if message else type(error).__name__
    local = Path(checkpoint).is_dir()
    if "trust_remote_code" in message or "custom code" in message:
        return f"{checkpoint} needs its own Python code; read that code, then allow it with base.model.trust_remote_code=true"
    if "gated repo" in message:
        return (
            f"{checkpoint} is gated: accept its licence at https://huggingface.co/{checkpoint} and log in (hf auth login), "
            f"or download it elsewhere and pass the folder's path"
        )
    if "model.safetensors" in message and ("no file named" in message or "not appear to have" in message):
        return (
            f"{checkpoint} contains no *.safetensors, and pickled weights (pytorch_model.bin) are never read because they can run any "
            f"code; if you trust them, load them once, save_pretrained them to another folder and pass that folder's path"
        )
    if "does not recognize this architecture" in message or ("Unrecognized model" in message and not local):
        return f"this version of Transformers does not support the architecture of {checkpoint} ({first}); use one of the family's models"
    if local:
        return f"the folder {checkpoint} is not a loadable checkpoint ({first}); it needs config.json, a tokenizer.json and *.safetensors"
    if checkpoint.startswith(("/", ".", "~")) or checkpoint.count("/") > 1:
        return f"the folder {checkpoint} does not exist; pass the path of a checkpoint's folder, or a hub id like ORG/NAME"
    return (
        f"cannot load {checkpoint}: neither a local folder nor reachable on the hub ({first}); check the name and network, "
        f"log in for private models (hf auth login), or download it elsewhere and pass the folder's path"
    )
