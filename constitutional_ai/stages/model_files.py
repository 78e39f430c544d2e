"""Notice other weights, another chat template or another engine behind the name of a model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from constitutional_ai.evaluation.candidates import weights_digest
from constitutional_ai.models.cached import IDENTIFYING
from constitutional_ai.models.load import LOCAL_SCHEMES, model_path
from constitutional_ai.runs.rows import digest_file

WEIGHTS = ".safetensors"
ENGINES = {
    "HuggingFaceModel": "native",
    "Int8Model": "native-int8",
    "TransformersModel": "transformers",
    "OpenVinoModel": "openvino",
    "Int8OpenVinoModel": "openvino-int8",
    "VllmModel": "vllm",
}
"""The engine of each class of models in this process."""


def digest_of_model(name: str) -> str:
    """Return a digest of the files in a local model's folder on which its answers depend; "" for any other model.

    All of its configuration, tokenizer and chat template is read, and about a megabyte of each file of weights.
    """
    folder = _folder(model_path(name)) if name.startswith(LOCAL_SCHEMES) else None
    if folder is None:
        return ""
    small = sorted(file for file in folder.iterdir() if file.suffix in IDENTIFYING - {WEIGHTS})
    parts = [weights_digest(f"hf:{folder}"), *[f"{file.name} {digest_file(file)}" for file in small]]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _folder(path: Path | str) -> Path | None:
    """Return the folder of a model's files; None if it is one of the hub's that is not on this machine yet."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(str(path), "config.json")
    return Path(config).parent if isinstance(config, str) else None


def engine_of(model: Any) -> str | None:
    """Return the name of the engine that runs a model in this process; None for any other model."""
    return ENGINES.get(type(model).__name__)
