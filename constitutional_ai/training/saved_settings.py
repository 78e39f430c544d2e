"""Settle the settings that are saved with trained weights: those of the base, and where an answer ends."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from constitutional_ai.models.local.tokens import NO_CODE
from constitutional_ai.models.turn_tokens import end_of_turn

OURS = {
    *("bos_token_id", "eos_token_id", "pad_token_id"),  # of the tokenizer that is saved beside the weights
    *("id2label", "label2id", "num_labels", "problem_type"),  # of a scalar head
    *("num_hidden_layers", "layer_types"),  # a regressor may have fewer
    *("architectures", "dtype", "transformers_version", "quantization_config", "_name_or_path"),
}
"""Settings that describe the trained model itself. All others are the base's."""


def restore(model: Any) -> None:
    """Set back what a trainer has set for itself, for example to compute the router losses of a mixture of experts.

    The base is the folder or hub id that the model was loaded from; a model made in memory has none.
    """
    base = getattr(model.config, "_name_or_path", "")
    if not base:
        return
    try:
        config = AutoConfig.from_pretrained(base, **NO_CODE)
    except OSError:  # the base is gone: to lose the training would be worse
        return
    _restore(model.config, config)


def _restore(config: Any, base: Any) -> None:
    """Set the settings of ``config``, and of its parts, to those of ``base``; settings without a base are removed."""
    parts = set(getattr(base, "sub_configs", ()))
    now, then = config.to_dict(), base.to_dict()
    for name in now.keys() - then.keys() - OURS:
        if hasattr(config, name):
            delattr(config, name)
    for name in then.keys() - OURS:
        if name in parts and hasattr(config, name):
            _restore(getattr(config, name), getattr(base, name))
        elif now.get(name) != then[name]:
            setattr(config, name, getattr(base, name))


def end_turns(model: Any, tokenizer: Any) -> None:
    """Add the token that ends an answer in the chat template to those that end a text, in both configurations.

    Servers stop by ``generation_config.json``, some by ``config.json``.
    """
    generation, turn = getattr(model, "generation_config", None), end_of_turn(tokenizer)
    if generation is None or turn is None:
        return
    ends = _ids(generation.eos_token_id) or _ids(model.config.eos_token_id)
    if turn not in ends:
        ends = [turn, *ends]
    generation.eos_token_id = ends if len(ends) > 1 else ends[0]
    if turn not in _ids(model.config.eos_token_id):
        model.config.eos_token_id = turn


def _ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
