"""Turn the counts of a recipe and a trial of its stages into the tokens that each model reads, writes and trains on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from constitutional_ai.estimate.count_work import Estimate
from constitutional_ai.estimate.trial_batch import Trial, tokens_in
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Comparison, Prompt, Response, RevisionChain
from constitutional_ai.runs import layout

Role = Literal["helpful", "pretrained", "preference_model", "feedback", "prompts"]
"""A key of a recipe's ``models``."""


@dataclass
class Work:
    """What one model does in a stage, in tokens."""

    role: Role
    read: float = 0.0
    """Tokens that pass through the model forwards only."""
    written: float = 0.0
    """Tokens that are decoded."""
    trained: float = 0.0
    """Tokens that pass through it forwards and backwards."""
    calls: float = 0.0
    """Requests; 0 in a training."""


@dataclass
class Lengths:
    """Mean tokens of the recipe's texts."""

    prompt: float
    revision: float
    """A prompt's answer after its revisions, without the prompt; likewise below."""
    response: float
    pair: float
    """One of a pair's two answers."""
    evaluation: float
    sample: float
    """An answer in reinforcement learning."""


@dataclass
class StageWork:
    """What all models do in a stage."""

    works: list[Work] = field(default_factory=list)
    longest: float = 0.0
    """Tokens of one sequence of it, on average."""

    def total(self, name: Literal["read", "written", "trained"]) -> int:
        """Return the sum over the models."""
        numbers: list[float] = [getattr(work, name) for work in self.works]
        return round(sum(numbers))


def lengths_of(recipe: Recipe, trials: Mapping[str, Trial]) -> Lengths:
    """Return the lengths in a trial. Answers to be sampled later are as long as they may be."""
    responses: list[Response] = trials[layout.RESPONSES].records
    chains: list[RevisionChain] = _records(trials, layout.REVISIONS)
    pairs: list[Comparison] = _records(trials, layout.COMPARISONS)
    response = _mean((r.completion.completion_tokens for r in responses), recipe.responses.max_tokens)
    answers = (answer.completion_tokens for pair in pairs for answer in (pair.a, pair.b))
    return Lengths(
        prompt=_mean((tokens_in(_conversation(r.prompt)) for r in responses), 0),
        response=response,
        revision=_mean((step.revised.completion_tokens for c in chains for step in c.revisions), response),
        pair=_mean(answers, response),
        evaluation=recipe.evaluation.max_tokens,
        sample=recipe.rl_cai.max_tokens,
    )


def _conversation(prompt: Prompt) -> str:
    return "".join(f"\n\nHuman: {message.content}" for message in prompt.conversation)


def _records(trials: Mapping[str, Trial], stage: str) -> list[Any]:
    return trials[stage].records if stage in trials else []


def _mean(values: Iterable[float], otherwise: float) -> float:
    numbers = list(values)
    return fmean(numbers) if numbers else otherwise


def work_of(recipe: Recipe, estimates: Iterable[Estimate], trials: Mapping[str, Trial]) -> dict[str, StageWork]:
    """Return the work of every stage that was counted."""
    lengths = lengths_of(recipe, trials)
    return {one.stage: _stage_work(recipe, one, trials, lengths) for one in estimates}


def _stage_work(recipe: Recipe, one: Estimate, trials: Mapping[str, Trial], lengths: Lengths) -> StageWork:
    stage, rows, prompt = one.stage, one.records, lengths.prompt
    if stage == layout.EVALUATION:
        return StageWork(_evaluation(recipe, one, lengths), prompt + lengths.evaluation)
    if stage == layout.SL_CAI_MODEL:
        answer = max(lengths.revision, lengths.response)
        return StageWork([Work("pretrained", trained=rows * (prompt + answer))], prompt + answer)
    if stage == layout.PREFERENCE_MODEL:
        longest = prompt + lengths.pair
        return StageWork([Work("preference_model", trained=rows * 2 * longest)], longest)
    if stage == layout.RL_CAI_MODEL:
        return _reinforcement(recipe, one, trials, lengths)
    return _called(one, trials, _ROLES[stage])


def _evaluation(recipe: Recipe, one: Estimate, lengths: Lengths) -> list[Work]:
    """Return the answers of the start, and those of the two trained models."""
    start, trained = recipe.models.helpful, recipe.models.pretrained
    shares: dict[Role, float] = {"pretrained": one.calls.get(trained, 0)}
    if start != trained:
        shares["helpful"] = one.calls.get(start, 0)
    return [
        Work(role, calls * lengths.prompt, calls * lengths.evaluation, calls=calls)
        for role, calls in shares.items()
    ]


_ROLES: dict[str, Role] = {
    layout.PROMPTS: "prompts",
    layout.RESPONSES: "helpful",
    layout.REVISIONS: "helpful",
    layout.COMPARISONS: "pretrained",
    layout.PREFERENCE_LABELS: "feedback",
}


def _called(one: Estimate, trials: Mapping[str, Trial], role: Role) -> StageWork:
    """Return the work of a stage of calls, each as in the trial; nothing where the trial made none."""
    trial, calls = trials.get(one.stage), sum(one.calls.values())
    if trial is None or not trial.calls:
        return StageWork()
    each = [number / trial.calls for number in (trial.read, trial.written)]
    return StageWork([Work(role, calls * each[0], calls * each[1], calls=calls)], sum(each))


def _reinforcement(recipe: Recipe, one: Estimate, trials: Mapping[str, Trial], lengths: Lengths) -> StageWork:
    """Return the work of reinforcement learning.

    Every answer is sampled, scored by the reference and by the preference model, and trained on in each pass. By pairs
    (DPO), both answers are scored by the reference and trained on.
    """
    rl, prompt = recipe.rl_cai, lengths.prompt
    if not rl.method.samples:
        both = 2 * one.records * (prompt + lengths.pair)
        return StageWork([Work("pretrained", read=both, trained=both)], prompt + lengths.pair)
    whole = one.sampled * (prompt + lengths.sample)
    reference = whole if rl.kl_weight else 0.0
    policy = Work(
        "pretrained",
        one.records * prompt + reference,  # the answers of a prompt share its pass
        one.sampled * lengths.sample,
        whole * rl.passes,
    )
    works = [policy]
    if rl.uses_preference_model:
        works.append(Work("preference_model", read=whole))
    if one.calls:
        labels = Estimate(layout.PREFERENCE_LABELS, 0, one.calls)
        works += _called(labels, trials, "feedback").works
    return StageWork(works, prompt + lengths.sample)
