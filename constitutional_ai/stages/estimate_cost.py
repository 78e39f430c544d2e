"""Estimate what a run will cost: calls from its recipe, tokens and time from an earlier run of the same settings.

Only a run shows how long answers are and how fast a model is. If there is none yet, make a pilot: the same recipe with
low limits. A pilot that does not fill the models' batches takes more time for each record than the whole run will.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.constitutions.control import apply_control
from constitutional_ai.data.prompts import KINDS, load_prompts_of_kind
from constitutional_ai.models.load import LOCAL_SCHEMES
from constitutional_ai.recipes.recipe import Recipe, flat
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.rl_cai.feedback.gate import gate_questions
from constitutional_ai.rl_cai.feedback.label import METHODS, calls_per_comparison
from constitutional_ai.rl_cai.preference_model.training_pairs import helpfulness
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.manifest import difference
from constitutional_ai.runs.rows import write_atomically

FREE = (*LOCAL_SCHEMES, "scripted:")
"""Beginnings of the names of models that cost no money."""
COUNTED = (
    *("seed", ".limit", ".generate", ".per_helpful_prompt", ".per_prompt", ".rounds", ".epochs"),
    *("rl_cai.prompts", *[f"evaluation.{kind}" for kind in KINDS]),
)
"""Endings of the settings that change how much a stage does, which is counted, but not what a record costs."""
EVERYWHERE = ("constitution", "control", "prompts.")
"""Beginnings of the settings that shape every stage, beside those in the ``stage.json`` of it and of earlier stages."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The expected cost of one stage."""

    stage: str
    records: int
    """Records, or rows of a training times epochs: an upper limit, because long and faulty ones are left out."""
    calls: dict[str, int] = field(default_factory=dict)
    """Number of calls by the model's name; a model that the run trains has the name of its base. An upper limit if
    prompts are drafted, because not all drafts are kept, or if a principle has no critique."""
    scores: bool = False
    """Whether calls return log-probabilities, whose tokens no record counts."""
    read: int | None = None
    """Tokens; None if unknown, as in the fields below."""
    written: int | None = None
    seconds: float | None = None
    cost: float | None = None
    """Cost in the currency of the prices. Local models cost nothing."""
    note: str = ""
    """The source of tokens and time, or why they are unknown."""

    @property
    def amount(self) -> int:
        """Amount of work, to which tokens and time are proportional."""
        return sum(self.calls.values()) or self.records


def estimate(
    recipe: Recipe, *, prices: tuple[float, float] | None = None, like: Path | None = None
) -> list[Estimate]:
    """Estimate every stage of a recipe, in order.

    ``prices`` are those of a million tokens that a server reads, and of a million that it writes, in any currency.
    ``like`` is a run whose tokens and times are scaled by the amounts of work, except those of stages that other
    settings shaped. Raises InputError if it is no run, or if a file of the recipe cannot be read.
    """
    estimates = [one for one in count_work(recipe) if one.records]
    if like:
        estimates = list(_scaled(estimates, recipe, like))
    return [replace(one, cost=_cost(one, *prices)) for one in estimates] if prices else estimates


def write(path: Path, estimates: Sequence[Estimate]) -> None:
    """Write the estimates as JSON."""
    write_atomically(path, json.dumps([asdict(one) for one in estimates], indent=1, ensure_ascii=False) + "\n")


def _scaled(estimates: Sequence[Estimate], recipe: Recipe, like: Path) -> Iterator[Estimate]:
    """Yield the estimates, with the tokens and times of the run ``like`` where no setting that shapes them differs."""
    run, earlier = read_run(like), load_recipe(str(like / layout.RECIPE))
    amounts = {one.stage: one.amount for one in count_work(earlier)}
    then, now = [flat(each.model_dump(mode="json")) for each in (earlier, recipe)]
    shaping = {key for key in now if key.startswith(EVERYWHERE)}
    for one in estimates:
        manifest = run.manifest(one.stage)
        if manifest is None:
            yield replace(one, note=f"{one.stage} is not complete in {like}.")
            continue
        shaping |= manifest.config.keys()
        compared = {key for key in shaping & then.keys() & now.keys() if not key.endswith(COUNTED)}
        old, new = [{"config": {key: each[key] for key in compared}, "inputs": {}} for each in (then, now)]
        if note := difference(one.stage, old, new, "the recipe"):
            yield replace(one, note=note)
            continue
        share = one.amount / amounts[one.stage]
        counts = (manifest.prompt_tokens, manifest.completion_tokens)
        read, written = [None if one.scores or count is None else round(share * count) for count in counts]
        note = f"scaled from {like}" + (", but scores report no tokens" if one.scores else "")
        if None in counts:
            note = f"scaled from {like}, where the model of {one.stage} did not say how many tokens it took."
        yield replace(one, read=read, written=written, seconds=share * manifest.seconds, note=note)


def _cost(one: Estimate, price_read: float, price_written: float) -> float | None:
    """Return the price of the tokens of servers, whose share is that of the calls; None if it is unknown."""
    paid = sum(count for name, count in one.calls.items() if not name.startswith(FREE))
    if not paid:
        return 0.0
    if one.read is None or one.written is None:
        return None
    return paid / one.amount * (one.read * price_read + one.written * price_written) / 1e6


def count_work(recipe: Recipe) -> list[Estimate]:
    """Count the records and calls of every stage, as if each file of prompts held only its own kind.

    Raises InputError if a file of the recipe cannot be read.
    """
    models, revisions, pm, rl = recipe.models, recipe.revisions, recipe.preference_model, recipe.rl_cai
    prompts, held_out, drafts = Counter[str](), 0, 0
    for kind in KINDS:
        file = getattr(recipe.prompts, kind)
        split = load_prompts_of_kind(file.file, kind)
        prompts[kind] = len(split.train[: file.limit]) + file.generate
        held_out += len(split.held_out[: getattr(recipe.evaluation, kind)])
        drafts += file.generate
    red_team = prompts["red_team"]
    helpful = (prompts.total() - red_team) * recipe.responses.per_helpful_prompt
    requests = red_team * revisions.rounds * (2 if revisions.style == "critiqued" else 1)
    revised = red_team * min(recipe.sl_cai.rounds or revisions.rounds, revisions.rounds)
    finetuned = _mixed(helpful, revised, recipe.sl_cai.helpful_share) * recipe.sl_cai.epochs
    comparisons = red_team * recipe.comparisons.per_prompt
    constitution = apply_control(load_constitution(recipe.constitution), recipe.control, recipe.seed)
    questions = calls_per_comparison(recipe.feedback, constitution) * (comparisons + len(gate_questions()))
    method = METHODS[recipe.feedback.method]
    people, pretraining = [
        len(helpfulness(pairs.file, pairs.limit, recipe.seed, pairs.stronger_than).rows) if pairs else 0
        for pairs in (pm.helpfulness, pm.pretraining)
    ]
    preferred = _mixed(people, comparisons, pm.helpful_share) * pm.epochs
    if pm.pretraining:
        preferred += pretraining * pm.pretraining.epochs
    rows = min(rl.prompts or prompts.total(), prompts.total()) if rl.method.samples else comparisons + people
    seen = int(rows * rl.epochs)
    ratings = seen * rl.answers * (2 if method.needs_assistants else 1) if rl.reward == "feedback" else 0
    answers = Counter({models.helpful: held_out}) + Counter({models.pretrained: 2 * held_out})
    return [
        Estimate(layout.PROMPTS, drafts, {models.prompts: drafts}),
        Estimate(layout.RESPONSES, red_team + helpful, {models.helpful: red_team + helpful}),
        Estimate(layout.REVISIONS, red_team, {models.helpful: requests}),
        Estimate(layout.SL_CAI_MODEL, int(finetuned)),
        Estimate(layout.COMPARISONS, comparisons, {models.pretrained: 2 * comparisons}),
        Estimate(layout.PREFERENCE_LABELS, comparisons, {models.feedback: questions}, method.needs_scores),
        Estimate(layout.PREFERENCE_MODEL, int(preferred) if rl.uses_preference_model else 0),
        Estimate(
            layout.RL_CAI_MODEL, seen, {models.feedback: ratings} if ratings else {}, scores=bool(ratings)
        ),
        Estimate(layout.EVALUATION, answers.total(), dict(answers)),
    ]


def _mixed(helpful: int, others: int, share: float | None) -> float:
    """Return the number of rows that ``mixture.mixed`` keeps, to within one."""
    return min(helpful / share, others / (1 - share)) if share else helpful + others
