"""``stage.json``: what a finished stage was made of, by what, and what it cost.

It is written last, so its existence means that the stage is complete.
"""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("constitutional-ai", "torch", "transformers", "trl", "peft", "openai")


@dataclass(frozen=True, slots=True)
class StageManifest:
    stage: str
    config: dict[str, Any]
    """Every setting that shaped the stage, by its dotted name in the recipe."""
    inputs: dict[str, str]
    """Digest of everything it read."""
    output: str
    """Digest of ``records.jsonl``, or of the weights."""
    records: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    """Of the last session, when the stage was interrupted and resumed."""
    finished: str
    notes: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None


@cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """Commit of this source tree, with ``+`` when it has changes; None outside a checkout."""
    here = Path(__file__).parent
    try:
        out = subprocess.run(  # noqa: S603
            ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip()
