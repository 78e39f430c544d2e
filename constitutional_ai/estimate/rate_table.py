"""Read a table of rates and prices that the user has measured: docs/estimate.md shows one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from constitutional_ai.data.lines import line_of, read_yaml
from constitutional_ai.errors import InputError
from constitutional_ai.recipes.recipe_file import explained
from constitutional_ai.training.settings import Section

UNITS = {"M": 1e6, "B": 1e9, "T": 1e12}
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**12)]


def _size(value: Any) -> Any:
    """Return the number of parameters that a size such as 8B, 135M or 70_000_000_000 means."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MBT])", str(value).strip())
    return float(match[1]) * UNITS[match[2]] if match else value


class ModelRates(Section):
    """What one GPU does with a model, or what its server takes."""

    size: Annotated[float, BeforeValidator(_size), Field(ge=1e5, le=1e14)] | None = None
    """Parameters, such as 8B. Without it those of the recipe's model, if that is a folder."""
    prefill: Rate | None = None
    """Tokens of prompts in a second and GPU: of all GPUs that hold the model, divided by their number."""
    decode: Rate | None = None
    """Generated tokens in a second and GPU, at the batch size that the run will have."""
    train: Rate | None = None
    """Tokens forwards and backwards in a second and GPU, the optimiser included."""
    price_read: Price | None = None
    """Price of a million tokens that a server reads."""
    price_written: Price | None = None
    """Price of a million tokens that a server writes."""


class Gpu(Section):
    """One GPU."""

    memory_gb: Rate | None = None
    """Memory in GB of 10⁹ bytes."""
    price_per_hour: Price | None = None
    """Price of an hour, in the currency of the other prices."""


class Scale(Section):
    """Numbers of rows, as if the recipe's files had so many; null counts the files."""

    red_team: Count | None = None
    """Training prompts, as in the next two."""
    helpful: Count | None = None
    borderline: Count | None = None
    held_out: Count | None = None
    """Prompts of the evaluation, of all kinds together."""
    comparisons: Count | None = None
    """People's comparisons of answers."""
    reinforcement: Count | None = None
    """Prompts of reinforcement learning; null: the training prompts."""


class RatedModels(Section):
    """The rates of the models, by their keys in the recipe's ``models``."""

    default: ModelRates = ModelRates()
    """Rates of all models that are not named."""
    helpful: ModelRates | None = None
    pretrained: ModelRates | None = None
    """Also those of the models that are trained from it, and of the preference model if it has none of its own."""
    preference_model: ModelRates | None = None
    feedback: ModelRates | None = None
    prompts: ModelRates | None = None


class RateTable(Section):
    """A file of rates and prices."""

    models: RatedModels
    """What the models of the recipe take."""
    gpu: Gpu = Gpu()
    """The GPUs that they run on."""
    scale: Scale = Scale()
    """How many rows there are, if not as many as in the recipe's files."""

    def of(self, role: str) -> ModelRates:
        """Return the rates of a model of the recipe."""
        models = self.models
        own = models.pretrained if role == "preference_model" else None
        return getattr(models, role) or own or models.default


def load_rates(path: Path) -> RateTable:
    """Read a table of rates. Raises InputError that names the line and the key that are wrong."""
    data, node = read_yaml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}:1: it must hold keys such as 'models:'; docs/estimate.md shows a table.")
    try:
        return RateTable.model_validate(data)
    except ValidationError as error:
        fault = explained(error, RateTable)
        raise InputError(f"{path}:{line_of(node, tuple(map(str, fault.place)))}: {fault}") from error
