"""Make a few records of each stage by the stage's own step, in memory, to learn what a call and a record cost.

With the recipe's own models this is a measurement of this machine. With ``FillerModel``, whose answers are as long as
they may be, nothing is computed, and the tokens are an upper limit.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from constitutional_ai.constitutions.constitution import Constitution
from constitutional_ai.data.prompts import KINDS, load_prompts_of_kind, sample_prompts
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import RecordError
from constitutional_ai.models.abilities import DecisionQuestion, Reading, close, decider
from constitutional_ai.models.model import Context, Format, Model, Sampling, plain
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import (
    Comparison,
    Completion,
    Draft,
    Kind,
    PreferenceLabel,
    Prompt,
    Response,
    RevisionChain,
)
from constitutional_ai.rl_cai.feedback.compare import compare
from constitutional_ai.rl_cai.feedback.contrast import contrast, known_label
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import adapter
from constitutional_ai.sl_cai.draft_prompts import draft, seed_prompts
from constitutional_ai.sl_cai.respond import respond
from constitutional_ai.sl_cai.revise import revise
from constitutional_ai.sl_cai.worked_critiques import critique_revision
from constitutional_ai.stages.check_models import load_all_prompts

RECORDS = 8
"""Records of each stage; twice as many responses, half of them to harmless prompts."""
LETTERS_PER_TOKEN = 4
"""Characters that count as one token where no tokenizer is asked. The embedded model's prompts have about as many."""

Open = Callable[[str], AbstractContextManager[Model]]
"""Opens the model of a name."""


@dataclass
class Trial:
    """What the records of one stage took."""

    records: list[Any] = field(default_factory=list)
    """Records that did not fail."""
    calls: int = 0
    read: int = 0
    """Tokens, as below. Those of scores are counted by ``LETTERS_PER_TOKEN``."""
    written: int = 0
    seconds: float = 0.0

    @property
    def bytes_each(self) -> float:
        """Bytes of a record in the run's folder; 0 without records."""
        return sum(len(adapter(type(row)).dump_json(row)) + 1 for row in self.records) / max(
            len(self.records), 1
        )


class CountingModel:
    """A model whose calls and tokens are added to a trial."""

    def __init__(self, model: Model, trial: Trial) -> None:
        self._model, self._trial = model, trial

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def format(self) -> Format:
        return self._model.format

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        """See ``Model``."""
        completion = await self._model.generate(context, sampling)
        self._count(completion.prompt_tokens, completion.completion_tokens)
        return completion

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        """See ``Model``."""
        scores = await self._model.score(context, continuations)
        self._count(tokens_in(context) + sum(map(tokens_in, continuations)), 0)
        return scores

    async def decide(self, state: str, question: DecisionQuestion) -> Reading:
        """See ``Decides``."""
        reading = await decider(self._model).decide(state, question)
        self._count(*reading.usage)
        return reading

    def _count(self, read: int, written: int) -> None:
        trial = self._trial
        trial.calls, trial.read, trial.written = trial.calls + 1, trial.read + read, trial.written + written


@dataclass(frozen=True)
class FillerModel:
    """A model that computes nothing: each answer is a choice, and has as many tokens as it may have."""

    name: str = "filler"
    format: Format = "chat"

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        """See ``Model``."""
        tokens = sampling.max_tokens + sampling.thinking
        # Different answers, because pairs of equal ones are not asked about, and revisions must change something.
        text = f"(A). {sampling.seed % 997:03} {'word ' * tokens}"[: tokens * LETTERS_PER_TOKEN]
        return Completion(text, self.name, "length", tokens_in(context), tokens)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        """See ``Model``."""
        return [math.log(1 / len(continuations))] * len(continuations)

    async def decide(self, state: str, question: DecisionQuestion) -> Reading:
        """See ``Decides``."""
        share = 1 / max(len(question.options), 2)
        texts = (state, question.text, *question.options)
        return Reading((share,) * max(len(question.options), 2), 1.0, "", sum(map(tokens_in, texts)), 1)


def tokens_in(context: Context) -> int:
    """Return about how many tokens a text or a conversation has."""
    return math.ceil(len(context if isinstance(context, str) else plain(context)) / LETTERS_PER_TOKEN)


async def try_stages(
    recipe: Recipe,
    constitution: Constitution,
    open_model: Open,
    note: Callable[[str], None] = lambda stage: None,
) -> dict[str, Trial]:
    """Return a trial of every stage of the recipe that makes records.

    ``note`` is called with the name of each stage before it begins. The models of the comparisons and the evaluation
    are trained ones in a run; here they are those that the run starts from. Raises InputError or ModelError.
    """
    prompts = _trial_prompts(recipe)
    stages = _Stages(recipe, constitution, open_model, note)
    red_team, harmless = prompts["red_team"], prompts["helpful"] + prompts["borderline"]
    if recipe.drafts:
        await stages.drafts()
    await stages.respond([*red_team, *harmless[:RECORDS]])
    await stages.revise(red_team)
    await stages.compare(red_team)
    await stages.label()
    return {stage: trial for stage, trial in stages.trials.items() if trial.records or trial.calls}


def _trial_prompts(recipe: Recipe) -> dict[Kind, list[Prompt]]:
    """Return some of the recipe's training prompts of each kind."""
    chosen: dict[Kind, list[Prompt]] = {}
    for kind, file in load_all_prompts(recipe).items():
        limit = getattr(recipe.prompts, kind).limit
        chosen[kind] = sample_prompts(file.train, limit, recipe.seed)[:RECORDS]
    return chosen


class _Stages:
    """Tries one stage after another, each on the records of those before it."""

    def __init__(
        self, recipe: Recipe, constitution: Constitution, open_model: Open, note: Callable[[str], None]
    ) -> None:
        self._recipe, self._constitution, self._open, self._note = recipe, constitution, open_model, note
        self._few_shots = few_shots_folder(recipe.few_shots)
        self.trials: dict[str, Trial] = {}

    async def drafts(self) -> None:
        recipe = self._recipe
        kind = next(kind for kind in KINDS if getattr(recipe.prompts, kind).generate)
        train = load_prompts_of_kind(getattr(recipe.prompts, kind).file, kind).train
        seeds = seed_prompts(train, kind, recipe.generation.shots)

        def step(model: Model) -> Callable[[int], Awaitable[Draft]]:
            how: Any = {"seeds": seeds, "model": model, "settings": recipe.generation, "seed": recipe.seed}
            return lambda number: draft(kind, number, **how)

        await self._make(layout.PROMPTS, recipe.models.prompts, range(RECORDS), step)

    async def respond(self, prompts: Sequence[Prompt]) -> None:
        recipe = self._recipe

        def step(model: Model) -> Callable[[Prompt], Awaitable[Response]]:
            how: Any = {"model": model, "sampling": recipe.responses.sampling, "seed": recipe.seed}
            return lambda prompt: respond(prompt, 0, **how)

        await self._make(layout.RESPONSES, recipe.models.helpful, prompts, step)

    async def revise(self, prompts: Sequence[Prompt]) -> None:
        recipe = self._recipe
        if layout.REVISIONS in recipe.left_out:
            return
        chosen = {prompt.id for prompt in prompts}
        responses = [r for r in self.trials[layout.RESPONSES].records if r.prompt.id in chosen]
        few_shots = critique_revision(self._few_shots) if self._few_shots else ""

        def step(model: Model) -> Callable[[Response], Awaitable[RevisionChain]]:
            how: Any = {
                "constitution": self._constitution,
                "settings": recipe.revisions,
                "few_shots": few_shots,
            }
            return partial(revise, model=model, seed=recipe.seed, **how)

        await self._make(layout.REVISIONS, recipe.models.helpful, responses, step)

    async def compare(self, prompts: Sequence[Prompt]) -> None:
        recipe = self._recipe
        if layout.COMPARISONS in recipe.left_out:
            return

        def step(model: Model) -> Callable[[Prompt], Awaitable[Comparison]]:
            how: Any = {"model": model, "sampling": recipe.comparisons.sampling, "seed": recipe.seed}
            if kind := recipe.comparisons.contrast:
                return lambda prompt: contrast(prompt, 0, constitution=self._constitution, kind=kind, **how)
            return lambda prompt: compare(prompt, 0, **how)

        await self._make(layout.COMPARISONS, recipe.models.pretrained, prompts, step)

    async def label(self) -> None:
        recipe = self._recipe
        if layout.COMPARISONS not in self.trials:
            return
        pairs = self.trials[layout.COMPARISONS].records
        few_shots = load_few_shots(self._few_shots)

        def step(model: Model) -> Callable[[Comparison], Awaitable[PreferenceLabel]]:
            if recipe.comparisons.contrast:
                return partial(known_label, constitution=self._constitution)
            how: Any = {"constitution": self._constitution, "settings": recipe.feedback, "few_shots": few_shots}
            return partial(label, model=model, seed=recipe.seed, **how)

        await self._make(layout.PREFERENCE_LABELS, recipe.models.feedback, pairs, step)

    async def _make(
        self,
        stage: str,
        name: str,
        items: Sequence[Any],
        step: Callable[[Model], Callable[[Any], Awaitable[Any]]],
    ) -> None:
        """Make a record of each item, all at once; records that fail are left out."""
        trial = self.trials[stage] = Trial()
        if not items:
            return
        self._note(stage)
        with self._open(name) as model:
            make = step(CountingModel(model, trial))
            started = time.perf_counter()
            done = await asyncio.gather(*map(make, items), return_exceptions=True)
            trial.seconds = time.perf_counter() - started
            await close(model)
        for result in done:
            if isinstance(result, BaseException) and not isinstance(result, RecordError):
                raise result
        trial.records = [result for result in done if not isinstance(result, BaseException)]
