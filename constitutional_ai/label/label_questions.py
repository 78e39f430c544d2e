"""What people are shown, and what they may answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from constitutional_ai.errors import RecordError
from constitutional_ai.records import Prompt, Side
from constitutional_ai.seeding import rng

Task = Literal["compare", "pairs", "harm", "revisions"]
"""``compare``: conversations with two models; ``pairs``: stored pairs of replies; ``harm``: how harmful a reply is;
``revisions``: whether a revision is fit to train on."""
Winner = Literal["a", "b", "tie", "both_bad"]
Decision = Literal["accept", "edit", "reject"]
MOST_HARMFUL = 4
"""The highest rating of harm; the lowest is 0 (EV-15)."""
STRONGEST = 3
"""The highest strength of a choice: much better."""


@dataclass(frozen=True, slots=True)
class PairQuestion:
    """Two replies to one conversation, of which a person chooses the better."""

    id: str
    prompt: Prompt
    """The conversation so far, which ends with a human turn."""
    began: str
    """Id of the prompt with which the conversation began: choices that share it are not independent."""
    a: str
    """Label of a model."""
    b: str
    reply_a: str | None = None
    """None until the model has written it."""
    reply_b: str | None = None

    def reply(self, side: Side) -> str | None:
        """Return the reply of a side."""
        return self.reply_a if side == "a" else self.reply_b


@dataclass(frozen=True, slots=True)
class HarmQuestion:
    """A conversation that ends with a reply, whose harmfulness a person rates."""

    id: str
    prompt: Prompt
    model: str
    reply: str


@dataclass(frozen=True, slots=True)
class RevisionQuestion:
    """One revision of a reply, which a person accepts, edits or rejects for training."""

    id: str
    """Id of the row of training data: that of its chain, and its round."""
    prompt: Prompt
    principle: str
    before: str
    """The reply that was revised."""
    critique: str | None
    revised: str


Question = PairQuestion | HarmQuestion | RevisionQuestion
TYPES: dict[Task, type[PairQuestion] | type[HarmQuestion] | type[RevisionQuestion]] = {
    "compare": PairQuestion,
    "pairs": PairQuestion,
    "harm": HarmQuestion,
    "revisions": RevisionQuestion,
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A person's choice between two replies."""

    winner: Winner
    strength: Annotated[int, Field(ge=1, le=STRONGEST)] | None = None
    """1 slightly, 2 clearly, 3 much better; None without a winner."""

    @property
    def signed(self) -> int:
        """How much better a is than b, from -3 to 3."""
        return {"a": 1, "b": -1}.get(self.winner, 0) * (self.strength or 0)


@dataclass(frozen=True, slots=True)
class Rating:
    """A person's rating of harm."""

    harm: Annotated[int, Field(ge=0, le=MOST_HARMFUL)]


@dataclass(frozen=True, slots=True)
class Review:
    """A person's decision on a revision."""

    decision: Decision
    text: str | None = None
    """The text that takes the revision's place, where it was edited."""


Answer = Choice | Rating | Review
ANSWERS: dict[Task, type[Choice] | type[Rating] | type[Review]] = {
    "compare": Choice,
    "pairs": Choice,
    "harm": Rating,
    "revisions": Review,
}


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's answer to one question."""

    question: str
    """Id of the question."""
    person: str
    answer: Answer
    shown_first: Side | None
    """The side of a pair that this person saw first."""
    at: str
    """Time of the answer, in UTC."""


def first_side(seed: int, question: str, person: str) -> Side:
    """Return which side of a pair a person sees first."""
    return rng(seed, "shown first", question, person).choice(("a", "b"))


def other_side(side: Side) -> Side:
    """Return the other side of a pair."""
    return "b" if side == "a" else "a"


def choice_of(value: str, shown_first: Side) -> Choice:
    """Return the choice that a form's value means: ``first-3`` to ``second-3``, ``tie`` or ``both_bad``.

    Raises RecordError for another value.
    """
    if value == "tie":
        return Choice("tie")
    if value == "both_bad":
        return Choice("both_bad")
    place, _, strength = value.partition("-")
    if place not in ("first", "second") or strength not in ("1", "2", "3"):
        raise RecordError("that is no choice")
    return Choice(shown_first if place == "first" else other_side(shown_first), int(strength))


def value_of(choice: Choice, shown_first: Side) -> str:
    """Return the form's value of a choice.

    >>> value_of(Choice("a", 3), "b"), value_of(choice_of("tie", "a"), "a")
    ('second-3', 'tie')
    """
    if choice.winner == "tie" or choice.winner == "both_bad":
        return choice.winner
    return f"{'first' if choice.winner == shown_first else 'second'}-{choice.strength or 1}"
