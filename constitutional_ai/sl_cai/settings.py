"""Settings of the supervised half: drafts, responses, revisions, and the finetuning (section 3)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from constitutional_ai.sl_cai.clean import RULES, Rule
from constitutional_ai.training.settings import Sampled, Training

Style = Literal["critiqued", "direct", "restate"]


class Generation(Sampled):
    """How a model drafts more prompts."""

    shots: int = Field(default=10, ge=1)
    """Example prompts shown before each draft; about ten in Bai et al. 2022a (SL-3)."""


class Responses(Sampled):
    """How initial responses are sampled."""

    per_helpful_prompt: int = Field(default=2, ge=1)
    """Responses to each helpful prompt; training on them keeps SL-CAI helpful (SL-16)."""


class Revisions(Sampled):
    """How responses are criticised and revised."""

    rounds: int = Field(default=4, ge=1)
    """Revisions of each response (SL-8)."""
    style: Style = "critiqued"
    """critiqued (the paper), direct (the paper's ablation without critiques, SL-14), or restate (ours, for small
    models)."""
    format: Literal["auto", "chat", "plain"] = "auto"
    """How requests are written: in the model's chat template, or in the paper's plain text. auto: whichever the model
    has."""
    clean: tuple[Rule, ...] = RULES
    """Clean-up rules, each counted (pitfall 18): openers are cut off; revisions that are empty, identical to the
    previous answer or critique, or that loop, are neither revised further nor trained on. Ours; the paper mentions
    none."""


class FinetuneTraining(Training):
    """The training of SL-CAI."""

    rounds: int | None = Field(default=None, ge=1)
    """SL-CAI-n learns from the revisions of rounds 1 to n (SL-17); null: of all rounds."""
    helpful_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of helpful responses in the training rows, reached by dropping random rows of the other side; null keeps
    all rows. 0.27 in the paper (SL-16)."""
