"""Constitutional AI (Bai et al. 2022): from a constitution to an evaluated model and a report."""

import os

# The hub's client reads this once, when it is first imported; TRL would call the hub at every training.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# libgomp reads this when torch loads it. Left alone, a thread that waits for another spins for milliseconds: where
# another program had the core that the other needed, 32 tokens took 71 s rather than 8.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "16000")

from constitutional_ai.constitutions.constitution import Constitution, Principle, load_constitution
from constitutional_ai.errors import CaiError
from constitutional_ai.models.load import load_model
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import (
    Comparison,
    Message,
    PreferenceLabel,
    Prompt,
    Response,
    RevisionChain,
)

__all__ = [
    "CaiError",
    "Comparison",
    "Constitution",
    "Message",
    "Model",
    "PreferenceLabel",
    "Principle",
    "Prompt",
    "Response",
    "RevisionChain",
    "Sampling",
    "ScriptedModel",
    "load_constitution",
    "load_model",
]
