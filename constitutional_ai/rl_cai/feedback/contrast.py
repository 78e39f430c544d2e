"""Sample pairs whose better answer is known from how each was sampled, so that no judge is asked. Not the paper's.

``personas`` is RLCD (Yang et al. 2023, arXiv 2307.12950): one answer is sampled from the model as the assistant that
upholds a drawn principle, and one as the assistant that breaks it. ``prompt`` samples one answer with the whole
constitution in the context, and one without it. Both are baselines for AI feedback.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from constitutional_ai.constitutions.constitution import Constitution, applying_to, draw
from constitutional_ai.constitutions.in_context import as_instructions
from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.models.instructed import InstructedModel
from constitutional_ai.models.model import Context, Model, Sampling
from constitutional_ai.records import Comparison, PreferenceLabel, Prompt, Side
from constitutional_ai.rl_cai.feedback.likelihood import as_assistant
from constitutional_ai.rl_cai.feedback.settings import ContrastName
from constitutional_ai.seeding import rng, seed_of

METHOD = "contrast"
"""The method of labels that nobody was asked for."""


async def contrast(
    prompt: Prompt,
    number: int,
    *,
    model: Model,
    sampling: Sampling,
    seed: int,
    constitution: Constitution,
    kind: ContrastName,
) -> Comparison:
    """Sample the better and the worse answer of pair ``number`` of a prompt; which is a is drawn.

    ``personas`` needs principles with ``upheld`` and ``broken``. Raises EmptyAnswer if an answer is empty.
    """
    name = f"{prompt.id}.{number}"
    draws = rng(seed, "contrast", name)
    side: Side = draws.choice(("a", "b"))
    better: Context = prompt.conversation
    worse: Context = prompt.conversation
    principle: str | None = None
    models: tuple[Model, Model] = (InstructedModel(model, as_instructions(constitution)), model)
    if kind == "personas":
        drawn = draw(applying_to(prompt, constitution.for_likelihood), draws)
        principle, models = drawn.name, (model, model)
        better, worse = [
            as_assistant(text or "", prompt.conversation, "chat") for text in (drawn.upheld, drawn.broken)
        ]
    good, bad = await asyncio.gather(
        *[
            one.generate(talk, replace(sampling, seed=seed_of(seed, "contrast", name, which)))
            for one, talk, which in zip(models, (better, worse), ("better", "worse"), strict=True)
        ]
    )
    if not (good.text and bad.text):
        raise EmptyAnswer("the model returned an empty answer")
    a, b = (good, bad) if side == "a" else (bad, good)
    return Comparison(name, prompt, a, b, better=side, principle=principle)


async def known_label(comparison: Comparison, *, constitution: Constitution) -> PreferenceLabel:
    """Return the certain label of a pair whose better answer is known. Two equal answers are a tie."""
    probability = 0.5 if comparison.a.text == comparison.b.text else float(comparison.better == "a")
    return PreferenceLabel(comparison.id, constitution.digest, comparison, METHOD, probability, ())
