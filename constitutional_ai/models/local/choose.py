"""Chooses the engine that runs weights on this machine.

``native`` is our own (Llama, Mistral and Qwen models), ``transformers`` plain transformers, the reference;
``native-int8`` and ``openvino-int8`` keep the weights in 8 bits.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from constitutional_ai import machine
from constitutional_ai.engine.open import int8_dtype, supports_config
from constitutional_ai.errors import InputError, ModelError, did_you_mean
from constitutional_ai.models.model import Model

PACKAGES = {
    "native": "transformers",
    "native-int8": "transformers",
    "openvino": "openvino_genai",
    "openvino-int8": "openvino_genai",
    "transformers": "transformers",
    "vllm": "vllm",
}
"""The package that each engine needs."""
FORMER_NAMES = {"transformers-int8": "native-int8"}
"""Names that engines have in recipes of older runs, and the ones that they have now."""
INT8 = "-int8"
MAX_SHARE = 0.8
"""Share of this machine's memory that weights may take. Those that take more are kept in 8 bits."""
VARIABLE = "CAI_ENGINE"
LOG = logging.getLogger(__name__)


def pick(
    engine: str | None, weights: str | Path, *, name: str = "", say: Callable[[str], None] = LOG.info
) -> str:
    """Return ``engine``, or what ``CAI_ENGINE`` names, or the fastest that is installed and runs ``weights``.

    ``say`` is called with a line that names it, and why. Raises InputError for an engine that is unknown, not
    installed, or not one for these weights.
    """
    named = _named(engine)
    picked, why = (check_engine(named, weights), "as set") if named else _fastest(weights)
    say(f"{name or weights} runs on engine {picked} ({why}).")
    return picked


def _named(engine: str | None) -> str | None:
    named = engine or os.environ.get(VARIABLE) or None
    return FORMER_NAMES.get(named, named) if named else None


def load_weights(
    name: str, weights: str | Path, *, engine: str | None = None, say: Callable[[str], None] = LOG.info
) -> Model:
    """Return the model of ``weights`` on the engine that ``pick`` picks. Raises InputError or ModelError.

    Where OpenVINO was picked, not named, and turns out to be unable to run the model, transformers does.
    """
    picked = pick(engine, weights, name=name, say=say)
    if picked == "vllm":
        from constitutional_ai.models.local.vllm import VllmModel

        return VllmModel(name, weights)
    if picked.startswith("openvino"):
        from constitutional_ai.models.local.openvino.openvino_model import Int8OpenVinoModel, OpenVinoModel

        try:
            return (Int8OpenVinoModel if picked.endswith(INT8) else OpenVinoModel)(name, weights)
        except ModelError as error:
            if _named(engine):
                raise
            say(f"{name} runs on engine transformers after all. {error}")
    from constitutional_ai.models.local.hugging_face import HuggingFaceModel, Int8Model, TransformersModel

    classes: dict[str, type[HuggingFaceModel]] = {"native": HuggingFaceModel, "native-int8": Int8Model}
    return classes.get(picked, TransformersModel)(name, weights)


def check_engine(engine: str, weights: str | Path) -> str:
    """Return the engine itself. Raises InputError: see ``pick``."""
    if engine not in PACKAGES:
        raise InputError(f"unknown engine '{engine}'.{did_you_mean(engine, PACKAGES)}")
    if not installed(engine):
        extra = "local" if PACKAGES[engine] == "transformers" else engine.removesuffix(INT8)
        raise InputError(
            f"the engine '{engine}' is not installed. Type: pip install 'constitutional-ai[{extra}]'"
        )
    if engine == "native" and (config := _config(weights)) is not None and not supports_config(config):
        raise InputError(
            f"the engine 'native' runs no model of type '{config.model_type}' with these settings. "
            "Set engine=transformers."
        )
    return engine


def installed(engine: str) -> bool:
    """Return whether the package that ``engine`` needs can be found."""
    return importlib.util.find_spec(PACKAGES[engine]) is not None


def _fastest(weights: str | Path) -> tuple[str, str]:
    """Return the fastest engine, by what ``benchmarks/engines.py`` and docs/backends.md measured, and why."""
    import torch

    gpu, native = torch.cuda.is_available(), _runs_natively(weights)
    if native and not gpu:
        if _is_too_large(weights):
            return "native-int8", "this machine's memory holds its weights only in 8 bits"
        return "native", "the fastest on a CPU for such a model"
    if installed("vllm"):
        return "vllm", "the fastest on a GPU" if gpu else "vLLM's build for CPUs is installed"
    if gpu or not installed("openvino"):
        return "native" if native else "transformers", "no faster engine is installed"
    why_not = _openvino_refuses(weights)
    return ("transformers", f"OpenVINO cannot: {why_not}") if why_not else ("openvino", "the fastest on a CPU")


def _runs_natively(weights: str | Path) -> bool:
    config = _config(weights)
    return config is not None and supports_config(config)


def _config(weights: str | Path) -> Any:
    """Return the configuration; None where it cannot be read: transformers says why when it loads the model."""
    from transformers import AutoConfig

    from constitutional_ai.models.local.tokens import NO_CODE

    try:
        return AutoConfig.from_pretrained(weights, **NO_CODE)
    except (OSError, ValueError):
        return None


def _is_too_large(weights: str | Path) -> bool:
    """Return whether the weights exceed this machine's memory in its own precision, and 8 bits are possible."""
    from safetensors import SafetensorError

    from constitutional_ai.models.local.exported import local_folder, parameter_count

    try:
        size = parameter_count(local_folder(weights)) * machine.best_dtype().itemsize
    except (OSError, ValueError, SafetensorError):
        return False  # transformers says what is wrong when it loads the model
    return size > MAX_SHARE * machine.physical_memory() and int8_dtype() is not None


def _openvino_refuses(weights: str | Path) -> str | None:
    from constitutional_ai.models.local.openvino.export_ir import unsupported

    config = _config(weights)
    return unsupported(config) if config is not None else "the configuration cannot be read"
