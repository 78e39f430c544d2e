"""Which engine runs weights that are here: ``transformers``, ``openvino`` or ``vllm``.

``transformers-int8`` and ``openvino-int8`` are these with the weights in 8 bits.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from pathlib import Path

from constitutional_ai.errors import InputError, ModelError, did_you_mean
from constitutional_ai.models.model import Model

PACKAGES = {
    "openvino": "openvino_genai",
    "openvino-int8": "openvino_genai",
    "transformers": "transformers",
    "transformers-int8": "transformers",
    "vllm": "vllm",
}
INT8 = "-int8"
MOST = 0.8
"""Of this machine's memory, for weights. Those that take more are kept in 8 bits."""
VARIABLE = "CAI_ENGINE"
LOG = logging.getLogger(__name__)


def pick(
    engine: str | None, weights: str | Path, *, name: str = "", say: Callable[[str], None] = LOG.info
) -> str:
    """``engine``, or what ``CAI_ENGINE`` names, or the fastest that is installed and runs ``weights``.

    ``say`` is told which, and why. Raises InputError for an engine that is unknown or not installed.
    """
    asked = _asked(engine)
    picked, why = (check_engine(asked), "as asked") if asked else _fastest(weights)
    say(f"{name or weights}: {picked} answers ({why}).")
    return picked


def _asked(engine: str | None) -> str | None:
    return engine or os.environ.get(VARIABLE) or None


def run(
    name: str, weights: str | Path, *, engine: str | None = None, say: Callable[[str], None] = LOG.info
) -> Model:
    """The model of ``weights`` on the engine that ``pick`` picks. Raises InputError or ModelError.

    Where nobody asked for OpenVINO and it turns out that it cannot run the model, transformers does.
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
            if _asked(engine):
                raise
            say(f"{name}: transformers answers after all. {error}")
    from constitutional_ai.models.local.hugging_face import HuggingFaceModel, Int8Model

    return (Int8Model if picked == "transformers-int8" else HuggingFaceModel)(name, weights)


def check_engine(engine: str) -> str:
    """The engine itself. Raises InputError for one that is unknown or not installed."""
    if engine not in PACKAGES:
        raise InputError(f"unknown engine '{engine}'.{did_you_mean(engine, PACKAGES)}")
    if not installed(engine):
        extra = {"transformers": "local"}.get(name := engine.removesuffix(INT8), name)
        raise InputError(
            f"the engine '{engine}' is not installed. Type: pip install 'constitutional-ai[{extra}]'"
        )
    return engine


def installed(engine: str) -> bool:
    return importlib.util.find_spec(PACKAGES[engine]) is not None


def _fastest(weights: str | Path) -> tuple[str, str]:
    """By what ``benchmarks/engines.py`` and docs/backends.md measured."""
    import torch

    gpu = torch.cuda.is_available()
    if not gpu and _shares(weights):
        if _too_large(weights):
            return "transformers-int8", "this machine's memory holds its weights only in 8 bits"
        return "transformers", "the fastest on a CPU for such a model"
    if installed("vllm"):
        return "vllm", "the fastest on a GPU" if gpu else "vLLM's build for CPUs is installed"
    if gpu:
        return "transformers", "no faster engine is installed"
    if not installed("openvino"):
        return "transformers", "no faster engine is installed"
    why_not = _openvino_refuses(weights)
    return ("transformers", f"OpenVINO cannot: {why_not}") if why_not else ("openvino", "the fastest on a CPU")


def _shares(weights: str | Path) -> bool:
    """Whether it is of an architecture that ``shared_engine`` runs."""
    from transformers import AutoConfig

    from constitutional_ai.engine.prefixes import knows

    try:
        return knows(AutoConfig.from_pretrained(weights))
    except (OSError, ValueError):
        return False  # transformers says what is wrong with it


def _too_large(weights: str | Path) -> bool:
    """As they are usually kept here, for this machine's memory; and 8 bits can be had."""
    from safetensors import SafetensorError

    from constitutional_ai import machine
    from constitutional_ai.models.local.exported import local_folder, numbers
    from constitutional_ai.models.local.hugging_face import int8_kernels

    try:
        bytes_ = numbers(local_folder(weights)) * machine.best_dtype().itemsize
    except (OSError, ValueError, SafetensorError):
        return False  # transformers says what is wrong with it
    return bytes_ > MOST * machine.physical_memory() and int8_kernels() is not None


def _openvino_refuses(weights: str | Path) -> str | None:
    from transformers import AutoConfig

    from constitutional_ai.models.local.openvino.export_ir import unsupported

    try:
        return unsupported(AutoConfig.from_pretrained(weights))
    except (OSError, ValueError):
        return "the configuration cannot be read"  # transformers says what is wrong with it
