"""Every row type, in the order in which the pipeline makes them.

Rows are frozen. Ids carry lineage: prompt ``3f2a9c…`` gives responses ``3f2a9c….0``, ``3f2a9c….1``, so one id
finds a prompt's whole life (``cai show RUN ID``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Literal, NamedTuple

Role = Literal["system", "user", "assistant"]
Kind = Literal["red_team", "helpful", "borderline"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


Conversation = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that ends with a user turn (SL-1)."""

    id: str
    """Hash of the conversation: the same on every machine."""
    conversation: Conversation
    kind: Kind
    source: str
    tags: tuple[str, ...] = ()
    """Kind of harm, or topic."""

    @classmethod
    def of(cls, conversation: Conversation, kind: Kind, source: str, tags: tuple[str, ...] = ()) -> Prompt:
        return cls(conversation_id(conversation), conversation, kind, source, tags)


def conversation_id(conversation: Conversation) -> str:
    """16 hex digits: at a million prompts, two share one with probability 3e-8."""
    text = json.dumps([[m.role, m.content] for m in conversation], ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model said, without the stop string that ended it."""

    text: str
    model: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Response:
    id: str
    prompt: Prompt
    completion: Completion

    @property
    def text(self) -> str:
        return self.completion.text


@dataclass(frozen=True, slots=True)
class Revision:
    """One critique and revision step under one principle (SL-6)."""

    principle: str
    critique: Completion | None
    """None when the revision was direct, without a critique (SL-14)."""
    revised: Completion


@dataclass(frozen=True, slots=True)
class RevisionChain:
    """An initial response and its revisions, each made from the one before (SL-7)."""

    id: str
    constitution: str
    """Digest of the constitution that the principles come from."""
    initial: Response
    revisions: tuple[Revision, ...] = ()

    @property
    def answer(self) -> str:
        return self.revisions[-1].revised.text if self.revisions else self.initial.text

    def revised_by(self, revision: Revision) -> RevisionChain:
        return replace(self, revisions=(*self.revisions, revision))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt (FB-1). Which of them is ``a`` is arbitrary."""

    id: str
    prompt: Prompt
    a: Completion
    b: Completion

    def swapped(self) -> Comparison:
        return replace(self, a=self.b, b=self.a)


Side = Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One question put to the feedback model."""

    principle: str
    shown_first: Side
    probability_first: float
    """P(the answer shown first is better), in [0, 1]."""
    reasoning: str | None = None

    @property
    def probability_a(self) -> float:
        return self.probability_first if self.shown_first == "a" else 1.0 - self.probability_first


@dataclass(frozen=True, slots=True)
class PreferenceLabel:
    """A soft target of the preference model (FB-5), and every question behind it."""

    id: str
    constitution: str
    comparison: Comparison
    method: str
    probability_a: float
    """P(a is better), in [0, 1]."""
    judgements: tuple[Judgement, ...]

    @property
    def flipped(self) -> bool | None:
        """Whether the two orders disagree on the winner; None when only one order was asked."""
        by_order = {
            side: [j.probability_a for j in self.judgements if j.shown_first == side] for side in ("a", "b")
        }
        if not (by_order["a"] and by_order["b"]):
            return None
        mean = {side: sum(values) / len(values) for side, values in by_order.items()}
        return (mean["a"] > 0.5) != (mean["b"] > 0.5)


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """The feedback model's answer to one question whose right answer is known."""

    id: str
    label: PreferenceLabel
    better: Side

    @property
    def probability_right(self) -> float:
        return self.label.probability_a if self.better == "a" else 1.0 - self.label.probability_a


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on disk."""

    path: str
    base_model: str
    digest: str
    """Digest of the saved weights, so that a later stage can prove which model it used."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What our detectors found in one answer."""

    objects: bool
    """Declines or objects, and does not comply."""
    degenerate: str | None
    """Why the answer is no text at all (empty, looping, gibberish), or None."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to one held-out prompt, with its verdict."""

    id: str
    model: str
    """Role in the run: start, sl-cai or rl-cai."""
    response: Response
    verdict: Verdict
    reward: float | None = None
    """The preference model's score; None when it was not asked."""


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    model: str
    value: float | None
    """None when nothing could be measured: that is not zero."""
    low: float | None
    """Lower end of the 95 % interval."""
    high: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that could not be made. It is owed again as long as its stage is not complete."""

    id: str
    error: str
    message: str


class Usage(NamedTuple):
    """Tokens that a record cost."""

    prompt_tokens: int
    completion_tokens: int


def usage(record: object) -> Usage:
    """All tokens of all completions inside a record, however deep.

    >>> from cai.records import Completion, usage
    >>> usage(Completion("hi", "m", "stop", prompt_tokens=3, completion_tokens=1))
    Usage(prompt_tokens=3, completion_tokens=1)
    """
    if isinstance(record, Completion):
        return Usage(record.prompt_tokens, record.completion_tokens)
    match record:
        case Response():
            parts: list[object] = [record.completion]
        case RevisionChain():
            # The initial response was paid for by the stage before.
            parts = [part for r in record.revisions for part in (r.critique, r.revised)]
        case Comparison():
            parts = [record.a, record.b]
        case Answer():
            parts = [record.response]
        case _:
            parts = []
    counts = [usage(part) for part in parts]
    return Usage(sum(c.prompt_tokens for c in counts), sum(c.completion_tokens for c in counts))


def as_messages(conversation: Conversation) -> list[dict[str, str]]:
    """The list of dicts that chat templates, TRL and servers take."""
    return [asdict(message) for message in conversation]
