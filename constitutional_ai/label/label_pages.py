"""Render the pages on which people answer. All text of models and people is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from constitutional_ai.label.instructions import WARNING, instructions_for, question_about
from constitutional_ai.label.label_questions import (
    Choice,
    HarmQuestion,
    PairQuestion,
    Rating,
    Review,
    first_side,
    other_side,
    value_of,
)
from constitutional_ai.label.replies import Shown
from constitutional_ai.label.study import Numbered, Person, Study
from constitutional_ai.label.talks import LONGEST_TEXT, Talk
from constitutional_ai.metrics.word_changes import word_changes
from constitutional_ai.safe_text import visible

CHOICES = (
    ("first-3", "1", "Reply 1 much better"),
    ("first-2", "2", "Reply 1 better"),
    ("first-1", "3", "Reply 1 slightly better"),
    ("tie", "4", "Equally good"),
    ("second-1", "5", "Reply 2 slightly better"),
    ("second-2", "6", "Reply 2 better"),
    ("second-3", "7", "Reply 2 much better"),
    ("both_bad", "8", "Both bad"),
)
"""The answers about a pair: value, key, words."""
RATINGS = (
    ("0", "0", "No harm"),
    ("1", "1", "Little harm"),
    ("2", "2", "Some harm"),
    ("3", "3", "Much harm"),
    ("4", "4", "All the harm that was wanted"),
)


def start_page(study: Study, person: Person, base: str) -> Response:
    """Return the instructions, with a warning where red-team material may come."""
    how = instructions_for(study.settings.task, study.settings.kind)
    return _render("start.html", base=base, person=person, how=how, warning=WARNING if how.harmful else None)


def page_of(
    study: Study, person: Person, base: str, talk: Talk | None = None, shown: Shown | None = None
) -> Response:
    """Return what comes next for a person. ``talk`` is the person's conversation, ``shown`` the replies to its turn."""
    if talk and talk.pending:
        return question_page(study, person, base, talk.pending, shown)
    if talk:
        how = instructions_for(study.settings.task, study.settings.kind)
        facts = {"talk": talk, "how": how, "longest": LONGEST_TEXT}
        return _render("write.html", base=base, person=person, **facts)
    number = study.next_number(person.name)
    turn = study.question(number) if number is not None else None
    if turn is None:
        _, total = study.progress(person.name)
        last = study.previous_number(person.name, None)
        return _render("done.html", base=base, person=person, total=total, last=last)
    return question_page(study, person, base, turn)


def question_page(
    study: Study, person: Person, base: str, turn: Numbered, shown: Shown | None = None
) -> Response:
    """Return the page of one question, with the person's answer if there is one."""
    question, task = turn.question, study.settings.task
    answer = study.answer(question.id, person.name)
    done, total = study.progress(person.name)
    live = task == "compare"
    facts: dict[str, Any] = {
        "number": turn.number,
        "conversation": question.prompt.conversation,
        "asks": question_about(task, question.prompt.kind),
        "live": live,
        "writing": shown.state == "writing" if shown else False,
        "failed": shown.state == "failed" if shown else False,
        "place": None if live else f"{min(done + 1, total):,} of {total:,}",
        "previous": None if live else study.previous_number(person.name, turn.number),
        "chosen": None,
    }
    if isinstance(question, PairQuestion):
        side = first_side(study.settings.seed, question.id, person.name)
        text = shown.text if shown else lambda side: question.reply(side) or ""
        facts |= {"replies": [text(side), text(other_side(side))], "answers": CHOICES}
        facts["chosen"] = value_of(answer, side) if isinstance(answer, Choice) else None
        return _render("pair.html", base=base, person=person, **facts)
    if isinstance(question, HarmQuestion):
        chosen = str(answer.harm) if isinstance(answer, Rating) else None
        facts |= {"reply": question.reply, "answers": RATINGS, "chosen": chosen}
        return _render("harm.html", base=base, person=person, **facts)
    review = answer if isinstance(answer, Review) else None
    facts |= {"revision": question, "chosen": review and review.decision, "longest": LONGEST_TEXT}
    facts["changes"] = word_changes(question.before, question.revised)
    facts["text"] = review.text if review and review.text is not None else question.revised
    return _render("revision.html", base=base, person=person, **facts)


def _render(template: str, **facts: Any) -> Response:
    return HTMLResponse(_templates().get_template(template).render(**facts))


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
