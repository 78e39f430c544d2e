"""What some models can do beside generating and scoring: show an answer as it grows, or weigh a question's options.

``Model`` stays two methods. An ability is a protocol of its own, which a model has or lacks. Who needs it and does not
find it raises ModelError, which says what to set instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from constitutional_ai.errors import ModelError
from constitutional_ai.models.model import Context, Model, Sampling
from constitutional_ai.records import Completion, Conversation, Usage


@dataclass(frozen=True, slots=True)
class DecisionQuestion:
    """A typed question about a text."""

    kind: Literal["choice", "score", "predicate"]
    """``choice`` asks which option fits best, ``score`` which level is reached, ``predicate`` whether it is so."""
    text: str
    options: tuple[str, ...] = ()
    """What each option says, in the order in which they are shown; the levels of a score, lowest first. A predicate has
    none: its reading holds P(yes) and P(no)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How probable a model holds each option of a question."""

    probabilities: tuple[float, ...]
    """One for each option, which add up to 1. All are 0 if the options hold no probability at all."""
    label_mass: float | None
    """Probability that the labels of all options hold together over the whole vocabulary, in [0, 1]; None if the server
    does not tell. The rest belongs to what the model would rather have said."""
    raw: str
    """What the model or its server answered."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def usage(self) -> Usage:
        """Tokens that it cost."""
        return Usage(self.prompt_tokens, self.completion_tokens)


@runtime_checkable
class Decides(Protocol):
    """A model that answers typed questions about a text, in its own chat template."""

    async def decide(self, state: str, question: DecisionQuestion) -> Reading:
        """Return how probable each option is. Raises RecordError if there is no answer, RefusedAnswer for a refusal."""
        ...


@runtime_checkable
class ReadsLetters(Protocol):
    """A chat model that cannot score continuations, but tells how probable the first tokens of its answer were."""

    async def letters(self, conversation: Conversation, letters: Sequence[str]) -> Reading:
        """Return how probable it is that the answer begins with each letter. Raises RecordError without an answer."""
        ...


@runtime_checkable
class Streams(Protocol):
    """A model that shows an answer as it grows."""

    async def stream(self, context: Context, sampling: Sampling, show: Callable[[str], None]) -> Completion:
        """Return what ``generate`` returns; until then ``show`` gets all of the answer so far, again and again.

        It is called in the running event loop. What it got last may differ from the answer, at whose ends blanks, a
        stop string or a thought are cut off.
        """
        ...


@runtime_checkable
class Closes(Protocol):
    """A model with connections, which belong to the event loop in which they were opened."""

    async def close(self) -> None:
        """Close the connections of the running event loop. A later request opens new ones."""
        ...


async def close(model: Model) -> None:
    """Close the model's connections of the running event loop, if it has any."""
    if isinstance(model, Closes):
        await model.close()


def decider(model: Model) -> Decides:
    """Return the model as one that answers decision questions. Raises ModelError if it does not."""
    if isinstance(model, Decides):
        return model
    raise ModelError(
        f"{model.name} answers no decision questions. Set feedback.method=multiple_choice, or votes for a model "
        "without log-probabilities, and feedback.predicates=false."
    )


async def streamed(
    model: Model, context: Context, sampling: Sampling, show: Callable[[str], None]
) -> Completion:
    """Return the model's completion, which is shown as it grows if the model can. Raises what ``generate`` raises."""
    if isinstance(model, Streams):
        return await model.stream(context, sampling, show)
    return await model.generate(context, sampling)
