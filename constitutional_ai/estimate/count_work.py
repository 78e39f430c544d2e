"""Count what each stage of a recipe does: records, calls of models, optimiser steps and sampled answers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from constitutional_ai.constitutions.constitution import Constitution, load_constitution
from constitutional_ai.constitutions.control import apply_control
from constitutional_ai.models.load import LOCAL_SCHEMES
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.rl_cai.feedback.gate import gate_questions
from constitutional_ai.rl_cai.feedback.label import METHODS, calls_per_comparison
from constitutional_ai.rl_cai.preference_model.refusal_gate import refusal_pairs
from constitutional_ai.rl_cai.preference_model.training_pairs import helpfulness
from constitutional_ai.rl_cai.reinforcement.groupwise_reward import circle
from constitutional_ai.runs import layout
from constitutional_ai.stages.check_models import load_all_prompts

FREE = (*LOCAL_SCHEMES, "scripted:")
"""Beginnings of the names of models that cost no money; those of servers have others."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The expected cost of one stage."""

    stage: str
    records: int
    """Records, or rows of a training times epochs: an upper limit, because long and faulty ones are left out."""
    calls: dict[str, int] = field(default_factory=dict)
    """Number of calls by the model's name; a model that the run trains has the name of its base. An upper limit if
    prompts are drafted, because not all drafts are kept, or if a principle has no critique."""
    steps: int = 0
    """Optimiser steps of a training, on one device."""
    sampled: int = 0
    """Answers that the policy samples in reinforcement learning, on this machine."""
    scores: bool = False
    """Whether calls return log-probabilities, whose tokens no record counts."""
    read: int | None = None
    """Tokens; None if unknown, as in the fields below."""
    written: int | None = None
    trained: int | None = None
    """Tokens that pass through a training forwards and backwards."""
    seconds: float | None = None
    gpu_hours: float | None = None
    """Hours of one GPU, by rates that the user gives."""
    memory: float | None = None
    """Peak memory in bytes: measured, or by the formula of docs/estimate.md over all GPUs together."""
    disk: float | None = None
    """Bytes that the stage leaves in the run's folder."""
    cost: float | None = None
    """Cost in the currency of the prices. Models on the user's own machine cost nothing."""
    note: str = ""
    """The source of tokens and time, or why they are unknown."""

    @property
    def amount(self) -> int:
        """Amount of work, to which tokens and time are proportional."""
        return sum(self.calls.values()) or self.records


@dataclass(frozen=True, slots=True)
class Amounts:
    """The rows of the files that a recipe names, as far as its limits let them be used."""

    prompts: Counter[str]
    """Training prompts by kind, with those that are drafted."""
    drafts: int
    held_out: int
    """Prompts of the evaluation."""
    people: int
    """People's comparisons."""
    pretraining: int
    """Pairs of preference pretraining."""
    reinforcement: int | None = None
    """Prompts of reinforcement learning, where they are more than all others; None if they are not."""


def amounts_of(recipe: Recipe) -> Amounts:
    """Count the rows of a recipe's files. Raises InputError if one cannot be read."""
    prompts, held_out, drafts = Counter[str](), 0, 0
    for kind, split in load_all_prompts(recipe).items():
        file = getattr(recipe.prompts, kind)
        prompts[kind] = len(split.train[: file.limit]) + file.generate
        held_out += len(split.held_out[: getattr(recipe.evaluation, kind)])
        drafts += file.generate
    pm = recipe.preference_model
    people, pretraining = [
        len(helpfulness(pairs.file, pairs.limit, recipe.seed, pairs.stronger_than).rows) if pairs else 0
        for pairs in (pm.helpfulness, pm.pretraining)
    ]
    return Amounts(prompts, drafts, held_out, people, pretraining)


def count_work(recipe: Recipe, amounts: Amounts | None = None) -> list[Estimate]:
    """Count the records and calls of every stage, as if each file of prompts held only its own kind.

    ``amounts`` stand in for the recipe's files. Raises InputError if a file of the recipe cannot be read.
    """
    models, revisions, pm, rl = recipe.models, recipe.revisions, recipe.preference_model, recipe.rl_cai
    amounts = amounts or amounts_of(recipe)
    prompts, held_out, people = amounts.prompts, amounts.held_out, amounts.people
    red_team = prompts["red_team"]
    helpful = (prompts.total() - red_team) * recipe.responses.per_helpful_prompt
    harmless = min(revisions.harmless, prompts.total() - red_team) if revisions.rounds else 0
    chains = red_team + harmless if revisions.rounds else 0
    requests = chains * revisions.rounds * (2 if revisions.style == "critiqued" else 1)
    revised = red_team * min(recipe.sl_cai.rounds or revisions.rounds, revisions.rounds)
    finetuned = _mixed(helpful, revised, recipe.sl_cai.helpful_share) * recipe.sl_cai.epochs
    draws = red_team * recipe.comparisons.per_prompt
    comparisons = draws + (red_team if recipe.comparisons.revised else 0)
    constitution = apply_control(load_constitution(recipe.constitution), recipe.control, recipe.seed)
    questions = calls_per_comparison(recipe.feedback, constitution) * (comparisons + len(gate_questions()))
    if recipe.comparisons.contrast or not comparisons:
        questions = 0  # nobody is asked, at the gate neither
    method = METHODS[recipe.feedback.method]
    preferred = _mixed(people + harmless, comparisons, pm.helpful_share) * pm.epochs
    if pm.pretraining:
        preferred += amounts.pretraining * pm.pretraining.epochs
    offered = amounts.reinforcement or _rl_prompts(prompts, rl.helpful_share)
    rows = min(rl.prompts or offered, offered) if rl.method.samples else comparisons + people + harmless
    seen = int(rows * rl.epochs)
    judged = reward_calls(recipe, constitution, seen)
    starts = 2 if recipe.evaluation.prompted else 1
    answers = Counter({models.helpful: starts * held_out}) + Counter({models.pretrained: 2 * held_out})
    return [
        Estimate(layout.PROMPTS, amounts.drafts, {models.prompts: amounts.drafts}),
        Estimate(layout.RESPONSES, red_team + helpful, {models.helpful: red_team + helpful}),
        Estimate(layout.REVISIONS, chains, {models.helpful: requests}),
        Estimate(layout.SL_CAI_MODEL, int(finetuned), steps=_steps(finetuned, recipe.sl_cai.batch_size)),
        Estimate(layout.COMPARISONS, comparisons, {models.pretrained: 2 * draws}),
        Estimate(
            layout.PREFERENCE_LABELS, comparisons, {models.feedback: questions}, scores=method.needs_scores
        ),
        Estimate(
            layout.PREFERENCE_MODEL,
            int(preferred) if rl.uses_preference_model else 0,
            steps=_steps(preferred, pm.batch_size) * (2 if pm.second else 1),
        ),
        Estimate(
            layout.RL_CAI_MODEL,
            seen,
            {models.feedback: judged} if judged else {},
            steps=_steps(seen, rl.prompts_per_batch if rl.method.samples else rl.batch_size) * rl.passes,
            sampled=seen * rl.answers if rl.method.samples else 0,
            scores=bool(judged),
        ),
        Estimate(layout.EVALUATION, answers.total(), dict(answers)),
    ]


def _rl_prompts(prompts: Counter[str], helpful_share: float | None) -> int:
    """Return how many prompts RL may use, as ``rl_prompts`` draws them."""
    if helpful_share is None:
        return prompts.total()
    harmless = prompts.total() - prompts["red_team"]
    return round(min(harmless / helpful_share, prompts["red_team"] / (1 - helpful_share)))


def reward_calls(recipe: Recipe, constitution: Constitution, seen: int) -> int:
    """Return the calls of the feedback model for the rewards of the answers to ``seen`` prompts, and for the gate."""
    rl, method = recipe.rl_cai, METHODS[recipe.feedback.method]
    if not rl.asks_feedback_model:
        return 0
    if rl.reward == "groupwise":
        pairs = seen * len(circle(rl.answers, rl.neighbours)) + len(refusal_pairs())
        return pairs * calls_per_comparison(recipe.feedback, constitution)
    answers = seen * rl.answers + 2 * len(refusal_pairs())
    if rl.reward == "propositions":
        return answers * len(constitution.propositions)
    return answers * (2 if method.needs_assistants else 1)


def _steps(rows: float, batch: int) -> int:
    """Return the number of optimiser steps over ``rows``, the last of which may be smaller."""
    return math.ceil(rows / max(batch, 1))


def _mixed(helpful: int, others: int, share: float | None) -> float:
    """Return the number of rows that ``mixture.mixed`` keeps, to within one."""
    return min(helpful / share, others / (1 - share)) if share else helpful + others
