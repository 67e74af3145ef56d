"""Where a run comes from: code, data, embeddings and packages, as plain types."""

import subprocess
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from state_rag.files import sample_digest

PACKAGES = (
    "state-rag",
    "arc-state",
    "cell-load",
    "cell-eval",
    "torch",
    "lightning",
    "transformers",
    "geomloss",
    "numpy",
    "anndata",
    "hydra-core",
    "wandb",
)


def git_revision(folder: str | Path = ".") -> dict[str, Any] | None:
    """Return the commit that `folder` is at and whether tracked files differ from it; None outside a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "modified": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def package_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the installed versions of those of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def file_fingerprints(paths: Iterable[str | Path]) -> dict[str, str]:
    """Return the `sample_digest` of each file, by its name; by its path where several have that name."""
    files = [Path(path) for path in paths]
    names = Counter(path.name for path in set(files))
    return {path.name if names[path.name] == 1 else str(path): sample_digest(path) for path in files}


def _git(folder: str | Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
