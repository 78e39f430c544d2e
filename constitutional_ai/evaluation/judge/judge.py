"""Pairs that people have judged, put to a feedback model (``cai judge``).

They are judged exactly as the pipeline labels, so chain_of_thought is measured after its clamp.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from constitutional_ai.constitutions.constitution import Constitution
from constitutional_ai.errors import InputError, RecordError
from constitutional_ai.models.model import Model
from constitutional_ai.records import Comparison, Failure, GateAnswer, Side
from constitutional_ai.rl_cai.feedback.label import METHODS, label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots

Judged = GateAnswer | Failure
"""What a feedback model makes of one pair: its label with people's choice, or why it has none."""
AT_ONCE = 64
"""Pairs in work at once."""


async def judge(
    comparisons: Sequence[tuple[Comparison, Side]],
    *,
    model: Model,
    constitution: Constitution,
    settings: Feedback,
    seed: int,
    few_shots: FewShots | None = None,
    on_judged: Callable[[Judged], None] = lambda judged: None,
) -> list[Judged]:
    """Label each comparison, given with the side that is better; return an answer or a failure for each, in order.

    As in a run, a RecordError is a failure and never a label; any other error ends the whole. Raises InputError when
    the constitution has no principle for the method. ``on_judged`` is called after each comparison.
    """
    if not METHODS[settings.method].principles(constitution):
        raise InputError(f"constitution '{constitution.name}' has no principle for method {settings.method}.")
    free = asyncio.Semaphore(AT_ONCE)

    async def one(comparison: Comparison, better: Side) -> Judged:
        judged: Judged
        async with free:
            try:
                soft = await label(
                    comparison,
                    model=model,
                    constitution=constitution,
                    settings=settings,
                    few_shots=few_shots,
                    seed=seed,
                )
                judged = GateAnswer(comparison.id, soft, better)
            except RecordError as error:
                judged = Failure(comparison.id, type(error).__name__, str(error))
        on_judged(judged)
        return judged

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*each)) for each in comparisons]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # all have one cause, and the user reads one sentence
    return [task.result() for task in tasks]
