"""Constitutional AI (Bai et al. 2022): from a constitution to an evaluated model and a report."""

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
