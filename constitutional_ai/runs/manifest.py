"""The ``stage.json`` of a finished stage: its settings, inputs and cost, and the versions of the software.

It is written last, so its existence means that the stage is complete.
"""

from __future__ import annotations

import json
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from constitutional_ai.records import Usage, total

PACKAGES = ("constitutional-ai", "torch", "transformers", "trl", "peft", "openai")

FILES_OF = "the files of "
"""Start of the names of inputs that are digests of a model's files."""


@dataclass(frozen=True, slots=True)
class StageManifest:
    """The content of ``stage.json``."""

    stage: str
    config: dict[str, Any]
    """Every setting that shaped the stage, by its dotted name in the recipe."""
    inputs: dict[str, str]
    """Digests of everything that the stage read, by name."""
    output: str
    """Digest of ``records.jsonl``, or of the weights; empty if it is not known, so that nothing can be checked."""
    records: int
    failures: int
    prompt_tokens: int | None
    """None if a model did not say how many tokens it read and wrote, as in the next field."""
    completion_tokens: int | None
    seconds: float
    """Duration; of the last session only, if the stage was interrupted and resumed."""
    finished: str
    notes: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    """Digest and size in bytes of the other files that are read later, by their path in the stage's folder."""

    @property
    def tokens(self) -> int:
        """All tokens that were counted."""
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)

    def with_more(self, tokens: Usage) -> StageManifest:
        """Return the manifest with more tokens spent, unless its tokens were not counted."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return self
        read, written = total((Usage(self.prompt_tokens, self.completion_tokens), tokens))
        return replace(self, prompt_tokens=read, completion_tokens=written)


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed ``PACKAGES``."""
    packages = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            packages[package] = metadata.version(package)
    return packages


@cache
def commit() -> str | None:
    """Return the commit of this source tree, with ``+`` when it has changes; None outside a checkout."""
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


def difference(stage: str, then: dict[str, Any], now: dict[str, Any], settings_source: str) -> str | None:
    """Return a sentence about the first difference in ``config`` or ``inputs`` of a stage; None if there is none.

    A setting that exists in only one of ``then`` and ``now`` is no difference.
    """
    now = json.loads(json.dumps(now))
    for key in sorted(then["config"].keys() & now["config"].keys()):
        old, new = then["config"][key], now["config"][key]
        if old != new:
            return f"{stage} was made with {key}: {_short(old)}, {settings_source} now says {_short(new)}."
    changed = changed_inputs(then, now)
    return f"{stage} was made from another version of {' and '.join(sorted(changed))}." if changed else None


def changed_inputs(then: dict[str, Any], now: dict[str, Any]) -> set[str]:
    """Return the names of the inputs that differ. Runs of earlier versions do not name the files of models."""
    old, new = then["inputs"], now["inputs"]
    changed = {name for name in {**old, **new} if old.get(name) != new.get(name)}
    return {name for name in changed if name in old or not name.startswith(FILES_OF)}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
