"""Where a trial's numbers come from: the commit, the versions of the libraries, the time."""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from jepa_ray.system.version import __version__


def provenance() -> dict[str, str | None]:
    """git_sha (None outside a checkout; `-dirty` with uncommitted changes), versions and started_at, as columns of the trials table."""
    return {
        "git_sha": _git_sha(Path(__file__).resolve().parents[1]),
        "versions": json.dumps(_versions(), sort_keys=True),
        "started_at": now(),
    }


def now() -> str:
    """The current time: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version(), "jepa_ray": __version__}
    for name in ("torch", "ray", "transformers", "peft", "optuna"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _git_sha(package: Path) -> str | None:
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(package), *arguments], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # In another project's checkout (a virtual environment in a repository) the commit says nothing about this package.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    sha = git("rev-parse", "HEAD")
    return f"{sha}-dirty" if sha and git("status", "--porcelain", "--untracked-files=no") else sha
