"""Read conversations that people rated for harm, in our own format and two public ones (section 4.5; EV-15).

Ratings are converted to the paper's scale, 0 (harmless) to 4; some files use 0 to 1. A file's scale is known from its
format, its rows or the user. It is never guessed from the numbers (pitfall 25).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from constitutional_ai.data.dialogues import as_turns
from constitutional_ai.data.lines import format_counts
from constitutional_ai.data.row_files import read_rows
from constitutional_ai.errors import InputError, first_fault
from constitutional_ai.records import Conversation, Message, conversation_id

HIGHEST = 4.0
"""The highest rating of the paper's scale; the lowest is 0."""
NO_RATING = "no rating"
Scale = Literal[1, 4]
"""The highest rating of a file's own scale."""


@dataclass(frozen=True, slots=True)
class Rated:
    """A conversation that ends with an answer, and people's rating of the whole conversation."""

    id: str
    conversation: Conversation
    rating: float
    """0 to 4; the mean where several people rated it."""

    @property
    def prompt(self) -> str:
        """Id of the first human turn: conversations that share it are not independent."""
        return conversation_id(self.conversation[:1])


class Ratings(NamedTuple):
    """The rated conversations of a file."""

    usable: list[Rated]
    unusable: Mapping[str, int]
    """Number of records that were left out, by reason."""


class _RedTeamAttempt(BaseModel):
    """A red-team attempt of hh-rlhf, with the worker's own rating of its success, 0 to 4."""

    transcript: str
    rating: float


class _ScoredResponse(BaseModel):
    """A scored response of PyRIT: ``human_score``, or ``human_score_1``, ``human_score_2``, …, each 0 to 1."""

    model_config = ConfigDict(extra="allow")
    objective: str
    assistant_response: str
    set: str = "harm"
    """What was rated. Sets other than ``harm`` rate how well the objective was met, or whether it was refused."""

    @property
    def scores(self) -> list[float]:
        """One number per rater."""
        given = {k: v for k, v in (self.model_extra or {}).items() if k.rstrip("_0123456789") == "human_score"}
        return [float(value) for value in given.values() if value not in ("", None)]


class _OwnRating(BaseModel):
    """A row in our own format."""

    conversation: Conversation = Field(default=(), alias="messages")
    prompt: str | Conversation = ()
    response: str = ""
    harm: float | None = None
    rating: float | None = None
    scale: Scale | None = None
    model_config = ConfigDict(populate_by_name=True)


def load_ratings(path: Path, scale: Scale | None = None) -> Ratings:
    """Read the rated conversations of a file: JSON, JSON lines, CSV or Parquet.

    A row is a red-team attempt of hh-rlhf (``transcript``, ``rating`` 0 to 4), a scored response of PyRIT
    (``objective``, ``assistant_response``, ``human_score`` 0 to 1), or in our own format: ``messages`` or
    ``conversation``, or ``prompt`` and ``response``, with ``rating`` or ``harm``. The highest rating of our own format
    is the row's ``scale``, or else the argument ``scale``. Raises InputError naming the first row that is wrong.
    """
    rated: dict[str, list[Rated]] = defaultdict(list)
    unusable: Counter[str] = Counter()
    for number, row in read_rows(path):
        try:
            read = _rated(row, scale)
        except ValidationError as error:
            raise InputError(f"{path}:{number}: {first_fault(error)}") from error
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from error
        if isinstance(read, str):
            unusable[read] += 1
        else:
            rated[read.id].append(read)
    if repeated := sum(len(same) - 1 for same in rated.values()):
        unusable["the same conversation again, its ratings averaged"] = repeated
    if not rated:
        why = f" ({format_counts(unusable)})" if unusable else ""
        raise InputError(f"{path} holds no usable rated conversations{why}. Name another file.")
    return Ratings([_averaged(same) for same in rated.values()], dict(unusable))


def _averaged(same: Sequence[Rated]) -> Rated:
    return Rated(same[0].id, same[0].conversation, fmean(one.rating for one in same))


def _rated(row: Mapping[str, Any], scale: Scale | None) -> Rated | str:
    """Return the rated conversation, or the reason why the record has none. Raises ValueError."""
    if "transcript" in row:
        attempt = _RedTeamAttempt.model_validate(row)
        return _checked(as_turns(attempt.transcript, "user"), [attempt.rating], 4)
    if "objective" in row and "assistant_response" in row:
        return _scored_response(_ScoredResponse.model_validate(row))
    return _own(_OwnRating.model_validate(row), scale)


def _scored_response(row: _ScoredResponse) -> Rated | str:
    if row.set != "harm":
        return f"a rating of '{row.set}', not of harm"
    conversation = (Message("user", row.objective), Message("assistant", row.assistant_response))
    return _checked(conversation, row.scores, 1)


def _own(row: _OwnRating, scale: Scale | None) -> Rated | str:
    response = (Message("assistant", row.response),) if row.response else ()
    ratings = [value for value in (row.rating, row.harm) if value is not None]
    if not ratings:
        return NO_RATING
    if (highest := row.scale or scale) is None:
        raise ValueError(
            "the scale of this rating is unknown. Pass --scale 1 or --scale 4, or give the row a 'scale'."
        )
    return _checked((*(row.conversation or as_turns(row.prompt, "user")), *response), ratings, highest)


def _checked(conversation: Conversation, ratings: Sequence[float], scale: Scale) -> Rated | str:
    """Return the conversation with its mean rating on the paper's scale, or the reason why it cannot be used."""
    if not ratings:
        return NO_RATING
    if not all(0 <= rating <= scale for rating in ratings):
        raise ValueError(f"the rating {max(ratings, key=abs):g} is not between 0 and {scale}.")
    if not conversation or conversation[-1].role != "assistant" or conversation[0].role == "assistant":
        return "no answer to a human turn at its end"
    if not all(message.content.strip() for message in conversation):
        return "an empty turn"
    return Rated(conversation_id(conversation), conversation, HIGHEST / scale * fmean(ratings))
