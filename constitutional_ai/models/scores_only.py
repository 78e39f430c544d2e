"""Refuse models that only score texts, as a preference model does, where one that writes them is needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from constitutional_ai.errors import ModelError


def check_writes(name: str) -> None:
    """Raise ModelError if the name is that of a folder whose model scores texts and writes none. Nothing is loaded."""
    config = Path(name.removeprefix("hf:")).expanduser() / "config.json"
    if not name.startswith("hf:") or not config.is_file():
        return
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except ValueError:
        return  # transformers says what is wrong when it loads the model
    if isinstance(settings, dict):
        refuse_scorer(name, settings.get("architectures"))


def refuse_scorer(name: str, architectures: Sequence[str] | None) -> None:
    """Raise ModelError if a model's ``architectures`` give scores, as a preference model's do, and no text."""
    if any(architecture.endswith("ForSequenceClassification") for architecture in architectures or ()):
        raise ModelError(
            f"'{name}' is a preference model or another model that only scores texts. Name one that writes them."
        )
