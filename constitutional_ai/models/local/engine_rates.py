"""Keeps the rates of engines that were measured on this machine, and says which engine is the fastest by them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from statistics import geometric_mean
from typing import Annotated

from pydantic import Field, TypeAdapter

from constitutional_ai import machine

REFERENCE = "transformers"
"""The engine that runs every model, and that scores for those that cannot."""
PACKAGES = ("constitutional-ai", "torch", "transformers", "openvino-genai", "vllm")
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The rates of engines with one model on one machine."""

    machine: dict[str, str]
    """What rates depend on: see ``describe_machine``."""
    native: bool
    """Whether the engine ``native`` runs the model: its rates hold for other models of this kind."""
    model: str
    day: date
    rates: dict[str, dict[str, Rate]]
    """What an engine finished of a workload in a second. An engine may lack a workload."""


_FORM = TypeAdapter(list[Measurement])


def describe_machine() -> dict[str, str]:
    """Return what rates depend on: the processor, the number type, what is installed and what is switched off."""
    import torch

    name, instructions = machine.processor()
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "processor": name,
        "instructions": " ".join(instructions),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "dtype": str(machine.best_dtype()),
        "kernels": os.environ.get("CAI_KERNELS") or "all",
        **versions,
    }


def kept_file() -> Path:
    """Return the file of all measurements. Machines may share it, where they share a home."""
    return machine.cache_folder() / "engines.json"


def keep(measurement: Measurement) -> None:
    """Write ``measurement`` to the file, whole or not at all, in place of one of the same machine and kind of model."""
    new = (measurement.machine, measurement.native)
    others = [other for other in _kept() if (other.machine, other.native) != new]
    path = kept_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        scratch = Path(folder) / path.name
        scratch.write_bytes(_FORM.dump_json([*others, measurement], indent=1) + b"\n")
        scratch.replace(path)  # whole or not at all


def mean_rates(rates: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the geometric mean of each engine's rates over the workloads, the fastest engine first.

    Where an engine lacks a workload, ``transformers`` does it in its place, and counts.

    >>> mean_rates({"transformers": {"a": 2.0, "b": 2.0}, "openvino": {"a": 8.0}})
    {'openvino': 4.0, 'transformers': 2.0}
    """
    means = {engine: geometric_mean((rates[REFERENCE] | own).values()) for engine, own in rates.items()}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def fastest_measured(native: bool, engines: Collection[str]) -> tuple[str, str] | None:
    """Return the fastest of ``engines`` by a measurement that fits this machine, and why; None without one."""
    here = describe_machine()
    for measurement in _kept():
        if (measurement.machine, measurement.native) == (here, native) and measurement.rates.get(REFERENCE):
            means = {e: mean for e, mean in mean_rates(measurement.rates).items() if e in engines}
            if means:
                return next(iter(means)), _reason(measurement.day, means)
    return None


def _reason(day: date, means: dict[str, float]) -> str:
    (_, best), *others = means.items()
    if not others:
        return f"measured here on {day}: no other engine ran"
    second, rate = others[0]
    return f"measured here on {day}: {best / rate:.2f} times {second}"


def _kept() -> list[Measurement]:
    """Return all measurements; none where the file is missing or not ours."""
    try:
        return _FORM.validate_json(kept_file().read_bytes())
    except (OSError, ValueError):
        return []
