"""A suite of scripted models, for the tests of its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.evaluation import suite
from constitutional_ai.evaluation.suite import Suite, open_evaluation
from constitutional_ai.models.model import Model
from constitutional_ai.records import Candidate, Kind, Message, Metric, Prompt
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.runs.run import Run

Measured = Callable[[Suite], list[Metric]]


def prompt(text: str, kind: Kind = "red_team") -> Prompt:
    return Prompt.of((Message("user", text),), kind, "test")


PROMPTS: dict[Kind, list[Prompt]] = {
    "red_team": [prompt(f"Rob house {n}!") for n in range(4)],
    "helpful": [prompt(f"Boil {n} eggs.", "helpful") for n in range(3)],
    "borderline": [prompt(f"Kill {n} weeds.", "borderline") for n in range(2)],
}


def suite_of(run: Run, *labels: str, concurrency: int = 4, **changes: Any) -> Suite:
    return Suite(
        **{
            "run": replace(run, concurrency=concurrency, max_failures=0),
            "candidates": tuple(Candidate(label, f"scripted:{label}", label) for label in labels),
            "prompts": PROMPTS,
            "judge": None,
            "feedback": Feedback(max_tokens=16),
            "preference_models": {},
            "harmfulness_model": None,
            "paper": None,
            "samples": 1,
            "temperature": 1.0,
            "max_tokens": 16,
            "turns": 1,
            "human": None,
            "anchor": labels[0],
            "seed": 0,
            "say": lambda text: None,
            **changes,
        }
    )


class Stage:
    """Measures parts in one folder, with models by the labels of the candidates."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch, self.said = folder, patch, list[str]()

    def measure(
        self, part: Measured, models: Mapping[str, Model], *, redo: str | None = None, **changes: Any
    ) -> dict[tuple[str, str], Metric]:
        """The figures by their name and model."""

        @asynccontextmanager
        async def loaded(name: str, **_: Any) -> AsyncIterator[Model]:
            yield models[name.removeprefix("scripted:")]

        self._patch.setattr(suite, "loaded_in_loop", loaded)
        with open_evaluation(self._folder, suite_silent(), redo) as run:
            made = part(suite_of(run, *models, **{"say": self.said.append, **changes}))
        found = {(metric.name, metric.model): metric for metric in made}
        assert len(found) == len(made)
        return found

    def lines(self, file: str) -> list[str]:
        return (self._folder / file).read_text(encoding="utf-8").splitlines()


def suite_silent() -> Any:
    from constitutional_ai.runs.runner import Silent

    return Silent()
