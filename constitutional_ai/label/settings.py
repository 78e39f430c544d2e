"""Settings of a labelling study."""

from __future__ import annotations

from dataclasses import dataclass

from constitutional_ai.label.label_questions import Task
from constitutional_ai.records import Kind


@dataclass(frozen=True, slots=True)
class Settings:
    """What makes a study what it is. It never changes."""

    task: Task
    seed: int
    """Decides the order of the questions, which side of a pair is shown first, and what the models sample."""
    source: str
    """The origin of the questions: a run, or ``models``."""
    kind: Kind | None = None
    """The test of a study with models (EV-8): red_team for harmlessness, helpful for helpfulness."""
    models: tuple[tuple[str, str], ...] = ()
    """Label and name of each model that replies."""
    temperature: float = 1.0
    max_tokens: int = 256

    @property
    def names(self) -> dict[str, str]:
        """The models' names by label."""
        return dict(self.models)
