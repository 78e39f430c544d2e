"""The models whose attention may be split at a shared prefix."""

from __future__ import annotations

from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ARCHITECTURES = {"llama", "mistral", "qwen2", "qwen3"}
"""Decoders in which every layer attends to all earlier tokens, through transformers' attention interface."""


def supports(model: Any) -> bool:
    """Return whether attention with a shared prefix is known, and tested, to be right for ``model``."""
    return model.config._attn_implementation == "sdpa" and supports_config(model.config)


def supports_config(config: Any) -> bool:
    """Return the same of a model's configuration, before its weights are loaded."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in ARCHITECTURES
        # Other RoPE types depend on the total length, so a prefix computed alone would differ.
        and rope.get("rope_type", "default") in {"default", "linear", "llama3", "yarn"}
        and all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
    )
