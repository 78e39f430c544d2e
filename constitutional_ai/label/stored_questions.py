"""Make the questions of a study from what a run has stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations

from constitutional_ai.errors import InputError
from constitutional_ai.label.label_questions import HarmQuestion, PairQuestion, Question, RevisionQuestion, Task
from constitutional_ai.records import Answer, Comparison, RevisionChain
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run
from constitutional_ai.seeding import seed_of


def stored_questions(
    run: Run, task: Task, *, answers: bool, limit: int | None, seed: int
) -> tuple[list[Question], int]:
    """Return the questions of a task in an order fixed by the seed, and how many pairs of equal replies are left out.

    ``answers`` takes pairs of different models' answers to held-out prompts rather than the pairs that the feedback
    model labelled. All people get one order, so that those who answer few questions answer the same. Raises InputError
    if the run has none.
    """
    rows = _of_task(run, task, answers)
    usable = [each for each in rows if not (isinstance(each, PairQuestion) and each.reply_a == each.reply_b)]
    ordered = sorted(usable, key=lambda each: (seed_of(seed, "order", each.prompt.id), seed_of(seed, each.id)))
    if isinstance(next(iter(ordered), None), RevisionQuestion):
        # Revisions of one reply stay together, in their order: the next one begins where this one ends.
        ordered = sorted(usable, key=lambda each: (seed_of(seed, "order", each.prompt.id), each.id))
    return ordered[:limit], len(rows) - len(usable)


def _of_task(run: Run, task: Task, answers: bool) -> list[Question]:
    """Return the questions in the order of the records. Raises InputError if there are none."""
    stage, make = _SOURCES["answers" if task == "pairs" and answers else task]
    questions = list(make(run))
    if not questions:
        raise InputError(
            f"{run.folder} has nothing to label in {stage} yet. Continue the run with: cai run "
            f"{run.folder / layout.RECIPE} out={run.folder}"
        )
    return questions


def _comparisons(run: Run) -> Iterator[Question]:
    for row in run.rows(layout.COMPARISONS, Comparison):
        yield PairQuestion(
            row.id, row.prompt, row.prompt.id, layout.SL_CAI, layout.SL_CAI, row.a.text, row.b.text
        )


def _answers(run: Run) -> Iterator[Question]:
    """Yield every pair of models on every held-out prompt that both have answered."""
    by_prompt: dict[str, list[Answer]] = {}
    for row in run.rows(layout.EVALUATION, Answer):
        by_prompt.setdefault(row.response.prompt.id, []).append(row)
    for of_one in by_prompt.values():
        for a, b in combinations(_one_of_each_model(of_one), 2):
            prompt = a.response.prompt
            name = f"{prompt.id}.{a.model}.{b.model}"
            yield PairQuestion(name, prompt, prompt.id, a.model, b.model, a.response.text, b.response.text)


def _one_of_each_model(answers: Iterable[Answer]) -> list[Answer]:
    return list({answer.model: answer for answer in answers}.values())


def _harm(run: Run) -> Iterator[Question]:
    for row in run.rows(layout.EVALUATION, Answer):
        if row.response.prompt.kind == "red_team":
            yield HarmQuestion(row.id, row.response.prompt, row.model, row.response.text)


def _revisions(run: Run) -> Iterator[Question]:
    """Yield every revision that would be trained on, named as its row of training data."""
    for chain in (c for c in run.rows(layout.REVISIONS, RevisionChain) if c.asks_for_harm):
        before = chain.initial.text
        for number, step in enumerate(chain.revisions, start=1):
            if step.fault is None:
                critique = step.critique.text if step.critique else None
                name, prompt = f"{chain.id}/r{number}", chain.initial.prompt
                yield RevisionQuestion(name, prompt, step.principle, before, critique, step.revised.text)
                before = step.revised.text


_SOURCES: dict[str, tuple[str, Callable[[Run], Iterator[Question]]]] = {
    "pairs": (layout.COMPARISONS, _comparisons),
    "answers": (layout.EVALUATION, _answers),
    "harm": (layout.EVALUATION, _harm),
    "revisions": (layout.REVISIONS, _revisions),
}
