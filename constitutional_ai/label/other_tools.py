"""Exchange pairs and choices with Label Studio and Potato, in the forms that their documentation describes.

Neither learns which model wrote a reply: questions go by their numbers, and the sides are drawn once for all people who
answer there. Label Studio's choices are those of our own page. Potato's pairwise scale runs from -3, the left one is
much better, to 3, and has no way to say that both are bad.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.data.lines import read_text
from constitutional_ai.errors import InputError, RecordError, shortened
from constitutional_ai.label.label_questions import (
    STRONGEST,
    Choice,
    PairQuestion,
    Vote,
    choice_of,
    first_side,
    other_side,
    value_of,
)
from constitutional_ai.label.study import Numbered, Study
from constitutional_ai.models.model import plain
from constitutional_ai.records import Side

ELSEWHERE = "other tool"
"""Stands for a person in the draw of the sides."""
LABEL_STUDIO = {"from_name": "choice", "to_name": "first", "type": "choices"}
OURS = "cai-"
"""What the ids of our people's results begin with, which Label Studio keeps: there, an annotator must be its user."""
SCHEME, VALUE = "preference", "scale_value"
"""Names of Potato's annotation scheme, and of its one label."""


def label_studio_tasks(study: Study, by_question: Mapping[str, Sequence[Vote]]) -> Iterator[dict[str, Any]]:
    """Yield a task for each pair with both replies, with the choices of people as annotations."""
    for number, question, first in _pairs(study):
        annotations = []
        for vote in by_question.get(question.id, ()):
            assert isinstance(vote.answer, Choice)
            value = {"choices": [value_of(vote.answer, first)]}
            annotations.append({"result": [{"id": OURS + vote.person, **LABEL_STUDIO, "value": value}]})
        yield {"id": number, "data": _data(number, question, first), "annotations": annotations}


def potato_items(study: Study) -> Iterator[dict[str, Any]]:
    """Yield an item for each pair with both replies. Potato's items hold no answers."""
    for number, question, first in _pairs(study):
        data = _data(number, question, first)
        yield {"id": str(number), "text": data["conversation"], "responses": [data["first"], data["second"]]}


def read_choices(study: Study, form: str, file: Path) -> str:
    """Add the choices in another tool's file to a study; return what was added, in a sentence.

    A choice that is there already is not added again. Raises InputError for a file that cannot be read or names a
    question that the study does not have; nothing is added then.
    """
    if study.settings.task not in ("compare", "pairs"):
        raise InputError(
            f"{study.folder} holds no pairs. Name a folder of cai label pairs or cai label compare."
        )
    document = _json(file)
    try:
        read = list(_label_studio(document) if form == "label-studio" else _potato(document))
    except (AttributeError, KeyError, TypeError, ValueError, RecordError) as error:
        tool = "Label Studio's JSON export" if form == "label-studio" else "a user_state.json of Potato"
        raise InputError(f"{file} is not {tool} of this study's pairs. Export it again.") from error
    pairs = {number: (question, first) for number, question, first in _pairs(study)}
    if unknown := next((number for number, _, _ in read if number not in pairs), None):
        raise InputError(
            f"{file} answers a question {unknown} that {study.folder} does not have. Name its own folder."
        )
    known = {(vote.question, vote.person): vote.answer for vote in study.votes()}
    added = 0
    for number, person, value in read:
        question, first = pairs[number]
        choice = choice_of(value, first)
        if known.get((question.id, person)) != choice:
            study.add_answer(question.id, person, choice, first)
            added += 1
    return f"{added:,} of {len(read):,} choices in {file} are new in {study.folder}"


def _pairs(study: Study) -> Iterator[tuple[int, PairQuestion, Side]]:
    """Yield the number of each pair with both replies, the pair, and the side that other tools show first."""
    for each in study.questions():
        question = _pair(each)
        if question.reply_a is not None and question.reply_b is not None:
            yield each.number, question, first_side(study.settings.seed, question.id, ELSEWHERE)


def _pair(each: Numbered) -> PairQuestion:
    assert isinstance(each.question, PairQuestion)
    return each.question


def _data(number: int, question: PairQuestion, first: Side) -> dict[str, Any]:
    talk = plain(question.prompt.conversation).removesuffix("\n\nAssistant:").strip()
    texts = {"first": question.reply(first), "second": question.reply(other_side(first))}
    return {"question": number, "conversation": talk, **texts}


def _json(file: Path) -> Any:
    try:
        return json.loads(read_text(file, "Name the file that the other tool wrote."))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON. Export it again.") from error


def _label_studio(document: Any) -> Iterator[tuple[int, str, str]]:
    """Yield the number of a question, a person's name, and a value of our page, of each annotation."""
    for task in document:
        for annotation in task["annotations"]:
            if annotation.get("was_cancelled"):
                continue
            (result,) = [one for one in annotation["result"] if one["from_name"] == LABEL_STUDIO["from_name"]]
            (value,) = result["value"]["choices"]
            choice_of(value, "a")
            yield int(task["data"]["question"]), _person(result, annotation.get("completed_by")), value


def _person(result: Any, completed_by: Any) -> str:
    """Return the name of who annotated: one of our people, or a user of Label Studio by address or number."""
    if str(result.get("id")).startswith(OURS):
        return str(result["id"]).removeprefix(OURS)
    name = completed_by.get("email") or completed_by["id"] if isinstance(completed_by, dict) else completed_by
    return shortened(f"label-studio-{name}")


def _potato(document: Any) -> Iterator[tuple[int, str, str]]:
    for number, labels in document["instance_id_to_label_to_value"].items():
        for label, value in labels:
            if label["schema"] == SCHEME and label["name"] == VALUE:
                yield int(number), shortened(str(document["user_id"])), _value(int(value))


def _value(scale: int) -> str:
    """Return the value of our page for a place on Potato's scale. Raises ValueError beyond its ends."""
    if abs(scale) > STRONGEST:
        raise ValueError("beyond the scale")
    return "tie" if scale == 0 else f"{'first' if scale < 0 else 'second'}-{abs(scale)}"
