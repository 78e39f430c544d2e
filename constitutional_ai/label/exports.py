"""Write people's answers in the forms that other commands read, and as tasks of other tools."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from constitutional_ai.errors import InputError
from constitutional_ai.label.label_questions import (
    MOST_HARMFUL,
    Choice,
    HarmQuestion,
    PairQuestion,
    Question,
    Rating,
    Review,
    RevisionQuestion,
    Vote,
)
from constitutional_ai.label.other_tools import label_studio_tasks, potato_items
from constitutional_ai.label.study import Study
from constitutional_ai.label.vote_results import matches_of
from constitutional_ai.records import as_messages
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.sl_cai.finetune import REVISIONS

Row = dict[str, Any]
PAIRS = ("compare", "pairs")
FORMS_OF_TASKS = {
    "matches": PAIRS,
    "judge": PAIRS,
    "harmfulness": ("harm",),
    "dataset": ("revisions",),
    "label-studio": PAIRS,
    "potato": PAIRS,
}
"""The tasks whose answers can be written in each form."""


def write_export(study: Study, form: str, out: Path) -> str:
    """Write a study's answers to a file, and return what was written in a sentence.

    Raises InputError if the study's answers have another form, there are none, or the file exists.
    """
    task = study.settings.task
    if task not in FORMS_OF_TASKS[form]:
        fitting = ", ".join(name for name, tasks in FORMS_OF_TASKS.items() if task in tasks)
        raise InputError(f"{study.folder} holds answers of the kind '{task}'. Set --to to one of: {fitting}.")
    if out.exists():
        raise InputError(f"{out} exists already. Name another file with --out, or delete it.")
    questions = {each.question.id: each.question for each in study.questions()}
    votes = [vote for vote in study.votes() if vote.question in questions]
    rows = list(_rows(study, form, questions, votes))
    if not rows:
        raise InputError(f"{study.folder} has nothing to write as {form} yet. Open one of its links first.")
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    whole = f"[{', '.join(lines)}]\n" if form == "label-studio" else "".join(line + "\n" for line in lines)
    write_atomically(out, whole)
    return f"{out}: {len(rows):,} rows of {len(votes):,} answers"


def _rows(study: Study, form: str, questions: dict[str, Question], votes: list[Vote]) -> Iterable[Row]:
    by_question: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_question[vote.question].append(vote)
    match form:
        case "matches":
            return [{**asdict(match), "test": test} for match, test in matches_of(questions, votes)]
        case "judge":
            return _judge_rows(questions, by_question)
        case "harmfulness":
            return _harm_rows(questions, votes)
        case "dataset":
            return _dataset_rows(questions, by_question)
        case "label-studio":
            return label_studio_tasks(study, by_question)
        case _:
            return potato_items(study)


def _judge_rows(questions: dict[str, Question], by_question: dict[str, list[Vote]]) -> Iterator[Row]:
    """Yield a pair for each question, with the reply that more people chose as the chosen one (``cai judge``).

    ``strength`` is the mean of how much better people found it, from 0 to 3; 0, a tie, if as many chose the other.
    """
    for name, votes in by_question.items():
        question, choices = questions[name], [v.answer for v in votes if isinstance(v.answer, Choice)]
        assert isinstance(question, PairQuestion)
        balance = sum((one.winner == "a") - (one.winner == "b") for one in choices)
        a_chosen = balance >= 0
        texts = (question.reply_a, question.reply_b) if a_chosen else (question.reply_b, question.reply_a)
        better = fmean(one.signed for one in choices) * (1 if a_chosen else -1)
        yield {
            "prompt": as_messages(question.prompt.conversation),
            "chosen": texts[0],
            "rejected": texts[1],
            # A majority of weak choices against one strong choice has no mean strength above 0.
            "strength": round(max(better, 1 / len(choices)), 4) if balance else 0,
            "annotators": len(choices),
        }


def _harm_rows(questions: dict[str, Question], votes: list[Vote]) -> Iterator[Row]:
    """Yield a row for each rating (``cai harmfulness`` averages those of one conversation)."""
    for vote in votes:
        question = questions[vote.question]
        assert isinstance(question, HarmQuestion) and isinstance(vote.answer, Rating)
        reply = {"role": "assistant", "content": question.reply}
        yield {
            "messages": [*as_messages(question.prompt.conversation), reply],
            "rating": vote.answer.harm,
            "scale": MOST_HARMFUL,
            "annotator": vote.person,
        }


def _dataset_rows(questions: dict[str, Question], by_question: dict[str, list[Vote]]) -> Iterator[Row]:
    """Yield the revisions that more people accepted than rejected, as ``sl_cai.finetune.examples`` does.

    Where somebody edited one, the last edit takes its place.
    """
    for name, votes in by_question.items():
        question, reviews = questions[name], [v.answer for v in votes if isinstance(v.answer, Review)]
        assert isinstance(question, RevisionQuestion)
        rejected = sum(review.decision == "reject" for review in reviews)
        if 2 * rejected >= len(reviews):
            continue
        edits = [review.text for review in reviews if review.text is not None]
        yield {
            "id": question.id,
            "source": REVISIONS,
            "prompt": as_messages(question.prompt.conversation),
            "completion": [{"role": "assistant", "content": edits[-1] if edits else question.revised}],
        }
