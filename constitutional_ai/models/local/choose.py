"""Chooses the engine that runs weights on this machine.

``native`` is our own (Llama, Mistral and Qwen models), ``transformers`` plain transformers, the reference;
``native-int8`` and ``openvino-int8`` keep the weights in 8 bits. Speed decides, as ``engine_rates`` keeps it.
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
from constitutional_ai.errors import InputError, ModelError, did_you_mean, missing_package
from constitutional_ai.models.local.engine_rates import fastest_measured
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
COMMAND = "cai doctor --engines"
"""Measures the engines on this machine, so that the next choice rests on that."""
LOG = logging.getLogger(__name__)


def pick(
    engine: str | None, weights: str | Path, *, name: str = "", say: Callable[[str], None] = LOG.info
) -> str:
    """Return ``engine``, or what ``CAI_ENGINE`` names, or the fastest that is installed and runs ``weights``.

    The fastest is what ``cai doctor --engines`` measured on this machine, else what was measured on others.

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

    Where OpenVINO was picked, not named, and turns out to be unable to run the model, native or transformers does.
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
            picked = "native" if runs_natively(weights) else "transformers"
            say(f"{name} runs on engine {picked} after all. {error}")
    from constitutional_ai.models.local.hugging_face import HuggingFaceModel, Int8Model, TransformersModel

    classes: dict[str, type[HuggingFaceModel]] = {"native": HuggingFaceModel, "native-int8": Int8Model}
    return classes.get(picked, TransformersModel)(name, weights)


def check_engine(engine: str, weights: str | Path) -> str:
    """Return the engine itself. Raises InputError: see ``pick``."""
    if engine not in PACKAGES:
        raise InputError(f"unknown engine '{engine}'.{did_you_mean(engine, PACKAGES)}")
    if not installed(engine):
        extra = "local" if PACKAGES[engine] == "transformers" else engine.removesuffix(INT8)
        raise InputError(f"the engine '{engine}' cannot run: {missing_package(PACKAGES[engine], extra)}")
    if engine == "native" and (config := _config(weights)) is not None and not supports_config(config):
        raise InputError(
            f"the engine 'native' runs no model of type '{config.model_type}' with these settings. "
            "Set engine=transformers."
        )
    return engine


def installed(engine: str) -> bool:
    """Return whether the package that ``engine`` needs can be found."""
    return importlib.util.find_spec(PACKAGES[engine]) is not None


def runnable_engines(weights: str | Path) -> list[str]:
    """Return the installed engines that run ``weights``, save those in 8 bits, which lose accuracy: nobody gets them
    for their speed alone."""
    import torch

    engines = [engine for engine in PACKAGES if not engine.endswith(INT8) and installed(engine)]
    if not runs_natively(weights):
        engines.remove("native")
    if "openvino" in engines and (torch.cuda.is_available() or _openvino_refuses(weights)):
        engines.remove("openvino")
    return engines


def _fastest(weights: str | Path) -> tuple[str, str]:
    """Return the engine that is the fastest by what was measured here, or else by docs/backends.md, and why."""
    import torch

    gpu, native = torch.cuda.is_available(), runs_natively(weights)
    if native and not gpu and _is_too_large(weights):
        return "native-int8", "this machine's memory holds its weights only in 8 bits"
    engines = runnable_engines(weights)
    if (measured := fastest_measured(native, engines)) is not None:
        return measured
    picked, why = _default(weights, gpu=gpu, native=native)
    return picked, why if len(engines) == 1 else f"{why}, measured on another machine. Here: {COMMAND}"


def _default(weights: str | Path, *, gpu: bool, native: bool) -> tuple[str, str]:
    """Return the default engine of docs/backends.md, and why."""
    if native and not gpu:
        return "native", "the default for such a model on a CPU"
    if installed("vllm"):
        return "vllm", "the default on a GPU" if gpu else "the default where vLLM's build for CPUs is installed"
    if gpu or not installed("openvino"):
        return (
            "native" if native else "transformers",
            "vLLM is not installed" if gpu else "neither vLLM nor OpenVINO is installed",
        )
    why_not = _openvino_refuses(weights)
    return (
        ("transformers", f"OpenVINO cannot: {why_not}")
        if why_not
        else ("openvino", "the default for such a model on a CPU")
    )


def runs_natively(weights: str | Path) -> bool:
    """Return whether the engine ``native`` runs ``weights``."""
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
