"""What keeps a local path from being a checkpoint's folder, before any library looks at it. Imports no torch, and reads no weights."""

from __future__ import annotations

import errno
import json
import shlex
from pathlib import Path

NEEDED = "the path of a folder with config.json, a tokenizer.json and *.safetensors"


def fault_of(checkpoint: str) -> str | None:
    """Why a name can be no checkpoint, with the remedy, in one sentence. None for a hub id, and for a folder that may be a checkpoint."""
    if not checkpoint.strip():
        return f"the name of the model is empty; give tiny, paper, a hub id such as ORG/NAME, or {NEEDED}"
    path = Path(checkpoint)
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return f"{checkpoint} is a symbolic link that leads back to itself; give {NEEDED}"
        return f"{checkpoint} is a symbolic link to {path.readlink()}, which does not exist; give {NEEDED}" if path.is_symlink() else None
    except ValueError:  # a null byte
        return f"{checkpoint!r} is no path; give {NEEDED}"
    if not path.is_dir():
        return f"{checkpoint} is a file; give {NEEDED}" + (f", such as {path.parent}" if (path.parent / "config.json").is_file() else "")
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        return f"{checkpoint} has adapters without the model that they belong to (adapter_config.json, no config.json); {_merge(path)}"
    return None


def _merge(path: Path) -> str:
    """How adapters become a checkpoint."""
    from jepa_ray.results import model_folder, read_model  # loads pandas, which a check of a file should not

    kept = read_model(path)
    if kept is None:
        base = _base(path)
        with_base = f"their base ({base})" if base else "their base"
        return (
            f"merge them into {with_base} with PEFT's merge_and_unload, save_pretrained model and tokenizer to a folder, and use that one"
        )
    depth = len(Path(kept.arm).parts) + 1
    parents = path.absolute().parents
    results = parents[depth] if len(parents) > depth else None
    inside = results is not None and model_folder(results, kept.arm, kept.seed) == path.absolute()
    source = shlex.quote(str(_as_written(path, depth) if inside else "RESULTS"))
    command = f"python -m jepa_ray.export {source} --arm {shlex.quote(kept.arm or 'ARM')} --seed {kept.seed} --merge --to DIR"
    return f"merge them with `{command}` and use the folder DIR"


def _as_written(path: Path, depth: int) -> Path:
    """The parent at this depth, relative where the path is."""
    return path.parents[depth] if len(path.parents) > depth else path.absolute().parents[depth]


def _base(path: Path) -> str:
    try:
        return str(json.loads((path / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path") or "")
    except (OSError, ValueError, AttributeError):
        return ""
