"""Compute how much memory a model takes, from its shape. docs/estimate.md derives the numbers.

All is in bytes, of all devices together. What is not counted: the libraries (0.5 to 1 GB), fragmentation, and buffers
of the exchange between devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from constitutional_ai.training.settings import Training

FULL = 4
"""Bytes of a float32: weights that are trained, their gradients, and each of Adam's two moments."""
ADAM = 2 * FULL


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a decoder with gated feed-forward layers, as Llama, Mistral and Qwen have."""

    parameters: int
    layers: int
    hidden: int
    """Width of the residual stream."""
    queries: int
    """Width of all heads' queries together."""
    keys: int
    """Width of all heads' keys together; their values are as wide."""
    inner: int
    """Width of the feed-forward layers."""
    vocabulary: int


def _llama(parameters: int, layers: int, hidden: int, keys: int, inner: int) -> Shape:
    sizes = {"parameters": parameters, "layers": layers, "hidden": hidden, "keys": keys, "inner": inner}
    return Shape(**sizes, queries=hidden, vocabulary=128_256)


SHAPES = (
    _llama(1_236_000_000, 16, 2048, 512, 8192),
    _llama(3_213_000_000, 28, 3072, 1024, 8192),
    _llama(8_030_000_000, 32, 4096, 1024, 14336),
    _llama(70_550_000_000, 80, 8192, 1024, 28672),
)
"""The shapes of Llama 3, by which a size alone is taken to be built."""


def shape_of_size(parameters: float) -> Shape:
    """Return the shape of Llama 3 that is nearest to a number of parameters, with that number."""
    nearest = min(SHAPES, key=lambda shape: abs(math.log(shape.parameters / parameters)))
    return replace(nearest, parameters=round(parameters))


def shape_of_config(config: Any, parameters: int) -> Shape:
    """Return the shape of a model of transformers, from its configuration."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        parameters=parameters,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        queries=heads * width,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * width,
        inner=config.intermediate_size,
        vocabulary=config.vocab_size,
    )


def inference_bytes(shape: Shape, tokens: float, *, value: int = 2) -> float:
    """Return the memory of a model that holds keys and values of ``tokens`` tokens; a value has ``value`` bytes."""
    return value * (shape.parameters + tokens * 2 * shape.layers * shape.keys)


def training_bytes(
    shape: Shape, settings: Training, tokens: float, *, scored: float | None = None, value: int = 2
) -> float:
    """Return the peak memory of a training step in which ``tokens`` tokens go through the model at once.

    ``scored`` of them get logits over the vocabulary (None: all; 0 for a preference model). ``value`` is the size of
    what is multiplied: 2 for bfloat16 by autocast, 4 for float32.
    """
    kept = tokens * shape.layers * _activation_bytes(shape, value, lora=settings.lora_rank is not None)
    logits = (tokens if scored is None else scored) * shape.vocabulary * (2 * FULL + value)
    return state_bytes(shape, settings, value=value) + kept + logits


def state_bytes(shape: Shape, settings: Training, *, value: int = 2) -> float:
    """Return the bytes of weights, gradients and Adam's moments, with autocast's copies of the weights."""
    if settings.lora_rank is not None:
        return value * shape.parameters + (2 * FULL + ADAM) * adapter_parameters(shape, settings.lora_rank)
    copies = value if value < FULL else 0
    return (2 * FULL + ADAM + copies) * shape.parameters


def adapter_parameters(shape: Shape, rank: int) -> int:
    """Return the number of LoRA's parameters on all linear layers."""
    attention = 2 * (shape.hidden + shape.queries) + 2 * (shape.hidden + shape.keys)
    return rank * shape.layers * (attention + 3 * (shape.hidden + shape.inner))


def _activation_bytes(shape: Shape, value: int, *, lora: bool) -> float:
    """Return what one layer keeps of one token for the pass backwards, without checkpoints of activations.

    Two norms keep the residual stream and its normalised form in float32, and give their output to the products;
    attention keeps queries, keys, values and its output; the feed-forward layer its gate before and after the
    activation, the other factor and their product. LoRA casts the input of each of its seven adapters to float32.
    """
    norms = 2 * shape.hidden * (2 * FULL + value)
    attention = 2 * value * (shape.queries + shape.keys)
    feed_forward = 4 * value * shape.inner
    casts = (FULL + value) * (5 * shape.hidden + shape.queries + shape.inner) if lora and value < FULL else 0
    return norms + attention + feed_forward + casts


def checkpoint_bytes(shape: Shape, settings: Training) -> float:
    """Return the bytes of a checkpoint: what is trained, in float32, with Adam's moments."""
    trained = shape.parameters
    if settings.lora_rank is not None:
        trained = adapter_parameters(shape, settings.lora_rank)
    return (FULL + ADAM) * trained
