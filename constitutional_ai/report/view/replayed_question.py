"""Write a judgement's question as it was put to the feedback model.

The question is not stored: it is made again by the code that asked it, from the settings, the constitution and the
worked examples of the run. A model that only listens takes the feedback model's place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from pydantic import ValidationError

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import CaiError, InputError, RecordError, first_fault
from constitutional_ai.models.abilities import DecisionQuestion, Reading
from constitutional_ai.models.model import Context, Format, Sampling
from constitutional_ai.recipes.few_shots_digest import few_shots_digest
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Completion, Conversation, Message, PreferenceLabel
from constitutional_ai.rl_cai.feedback.label import METHODS, questions_of
from constitutional_ai.rl_cai.feedback.method import FeedbackQuestion
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs import layout
from constitutional_ai.runs.stored_run import StoredRun

SECTION = "feedback."
CANNOT = "The question cannot be written again: {why}"
VOTE = "(A)"
"""A reply from which a method that samples text goes on."""


class Request(NamedTuple):
    """What the feedback model was given to continue, to score or to decide on."""

    turns: Conversation
    """Turns for the model's chat template; a raw text is one turn without a role."""
    raw: bool
    options: tuple[str, ...]
    """The continuations that were scored, or the options of a decision; empty if the model wrote text."""


class ReplayedQuestion(NamedTuple):
    """The requests behind one judgement, and what is not certain about them."""

    requests: tuple[Request, ...]
    note: str


@dataclass
class _Listener:
    """A model that keeps what it is asked, and answers as the judgement says the feedback model did."""

    format: Format
    reply: str
    name: str = "listener"
    heard: list[Request] = field(default_factory=list)

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        self._hear(context, ())
        return Completion(self.reply, self.name, "stop", 1, 1)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        self._hear(context, continuations)
        return [-1.0] * len(continuations)

    async def decide(self, state: str, question: DecisionQuestion) -> Reading:
        self._hear(f"{state}\n\n{question.text}", question.options)
        return Reading((0.5, 0.5), None, "")

    def _hear(self, context: Context, options: Sequence[str]) -> None:
        raw = isinstance(context, str)
        turns = (Message("user", context),) if isinstance(context, str) else tuple(context)
        request = Request(turns, raw, tuple(options))
        if request not in self.heard:  # votes ask the same again
            self.heard.append(request)


class _ServerListener(_Listener):
    """A listener in place of a chat server, which scores no continuations."""

    async def letters(self, conversation: Conversation, letters: Sequence[str]) -> Reading:
        self._hear(conversation, letters)
        return Reading((0.5, 0.5), None, "")


def replayed_question(run: StoredRun, label: PreferenceLabel, number: int) -> ReplayedQuestion | str:
    """Return the question behind a label's judgement, whose ``number`` counts from 0.

    Where it cannot be written again as it was, return a sentence that says why.
    """
    try:
        return _written_again(run, label, number)
    except CaiError as error:
        return str(error)


def _written_again(run: StoredRun, label: PreferenceLabel, number: int) -> ReplayedQuestion:
    config = run.started_stages().get(layout.PREFERENCE_LABELS, {}).get("config", {})
    settings, model = _settings(config, label), str(config.get("models.feedback", ""))
    fmt, note = _format(settings, model)
    question = next(islice(_questions(run, label, config, settings, fmt), number, None), None)
    judgement = label.judgements[number]
    drawn = (judgement.principle, judgement.shown_first)
    if question is None or (question.principle.name, question.first) != drawn:
        raise InputError(CANNOT.format(why="the run's settings are no longer those that were used."))
    kind = _ServerListener if model.startswith("server:") else _Listener
    listener = kind(fmt, judgement.reasoning or VOTE)
    with suppress(RecordError):  # what was asked is all that counts
        asyncio.run(METHODS[settings.method].judge(question, listener, settings))
    return ReplayedQuestion(tuple(listener.heard), note)


def _questions(
    run: StoredRun, label: PreferenceLabel, config: dict[str, Any], settings: Feedback, fmt: Format
) -> Iterator[FeedbackQuestion]:
    constitution = load_constitution(run.folder / layout.CONSTITUTION)
    if constitution.digest != label.constitution:
        raise InputError(CANNOT.format(why="the run's constitution is no longer the one that was used."))
    few_shots = few_shots_folder(load_recipe(str(run.folder / layout.RECIPE)).few_shots)
    if config.get("few_shots", few_shots_digest(few_shots)) != few_shots_digest(few_shots):
        raise InputError(CANNOT.format(why="the worked examples are no longer those that were used."))
    return questions_of(
        label.comparison,
        constitution=constitution,
        settings=settings,
        fmt=fmt,
        seed=config["seed"],
        few_shots=load_few_shots(few_shots),
    )


def _settings(config: dict[str, Any], label: PreferenceLabel) -> Feedback:
    own = {key.removeprefix(SECTION): value for key, value in config.items() if key.startswith(SECTION)}
    known = {key: value for key, value in own.items() if key in Feedback.model_fields}
    try:
        settings = Feedback.model_validate(known)
    except ValidationError as error:
        raise InputError(
            CANNOT.format(why=f"the run's settings cannot be read: {first_fault(error)}")
        ) from error
    if label.method != settings.method or not isinstance(config.get("seed"), int):
        raise InputError(CANNOT.format(why="the run does not say with which settings it was asked."))
    return settings


def _format(settings: Feedback, model: str) -> tuple[Format, str]:
    """Return the format in which a model was asked, and what is not certain about it."""
    if settings.format != "auto":
        return settings.format, ""
    if model.startswith(("server:", "anthropic:", "scripted:", "bundled:")):
        return "chat", ""
    return "chat", (
        f"The format was the model's own, and {model or 'the model'} is not loaded here. This is the form for a model "
        "with a chat template; another reads the same words as plain text, behind worked examples."
    )
