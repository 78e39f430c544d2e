"""Settings of the supervised half: drafts, responses, revisions, and the finetuning (section 3)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from constitutional_ai.sl_cai.clean import RULES, Rule
from constitutional_ai.training.settings import Sampled, Training

Style = Literal["critiqued", "direct", "restate", "prompted"]


class Generation(Sampled):
    """Settings of the drafts of more prompts."""

    shots: int = Field(default=10, ge=1, le=1000)
    """Example prompts shown before each draft; about ten in Bai et al. 2022a (SL-3)."""


class Responses(Sampled):
    """Settings of the initial responses."""

    per_helpful_prompt: int = Field(default=2, ge=1, le=1000)
    """Responses to each helpful prompt; training on them keeps SL-CAI helpful (SL-16)."""


class Revisions(Sampled):
    """Settings of critiques and revisions."""

    rounds: int = Field(default=4, ge=0, le=1000)
    """Revisions of each response (SL-8). 0: none, so that SL-CAI is finetuned on helpful responses only, as the paper's
    RLHF models are before RL (OV-4)."""
    style: Style = "critiqued"
    """critiqued (the paper), direct (the paper's ablation without critiques, SL-14), or restate (ours, for small
    models). Or prompted, a baseline of ours: what the model answers with the whole constitution in its context is
    trained on without it (context distillation)."""
    format: Literal["auto", "chat", "plain"] = "auto"
    """Form of the requests: the model's chat template, or the paper's plain text. auto: the model's own format."""
    clean: tuple[Rule, ...] = RULES
    """Clean-up rules (pitfall 18). Openers are cut off. Revisions that are empty, that loop, or that are identical to
    the previous answer or critique, are neither revised further nor trained on. Ours; the paper mentions none."""
    harmless: int = Field(default=0, ge=0, le=1_000_000)
    """Harmless prompts (helpful and borderline) of which one answer is revised, too. A revision that refuses such a
    prompt is over-refusal: SL-CAI is not trained on it, and the preference model learns to prefer the answer
    (pitfall 28). 0: none. Ours."""


class FinetuneTraining(Training):
    """The training of SL-CAI."""

    rounds: int | None = Field(default=None, ge=1, le=1000)
    """Train only on the revisions of the first rounds: n gives the paper's SL-CAI-n (SL-17). Null: all rounds."""
    helpful_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of helpful responses in the training rows; random rows of the overrepresented kind are dropped. Null keeps
    all rows. 0.27 in the paper (SL-16)."""
