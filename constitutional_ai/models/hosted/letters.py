"""Read from a chat server's ``top_logprobs`` how probable each letter is as the beginning of an answer.

A letter has many tokens: ``A``, `` A``, ``(A``, or ``(`` and then ``A``. All of them count. What a server lists are the
likeliest tokens of each place, so the letters' mass may be a little too low, and is never too high.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import openai

from constitutional_ai.errors import BrokenReply, ModelError, OnlyThought, RefusedAnswer
from constitutional_ai.models.abilities import Reading
from constitutional_ai.models.hosted.fields import Fields
from constitutional_ai.models.hosted.probe import Probe
from constitutional_ai.models.hosted.reply import THOUGHT_FIELDS, first_choice, tokens_of
from constitutional_ai.models.hosted.resend import whole_answer
from constitutional_ai.models.thinking import CHANNEL, OPENING
from constitutional_ai.records import Conversation, Message, as_messages
from constitutional_ai.safe_text import whole_characters

MARKS = r"[\s(\[{<*_`\"'“‘]*"
OPENS = re.compile(MARKS)
"""A token that says nothing yet, so that the letter may be the next one."""
LETTER = re.compile(rf"{MARKS}([A-Z])[)\]}}>*_`\"'”’.,:;\s]*")
CONTINUES = re.compile(r"[\w'’]|\s+(?!(?:is|because|since|as)\b)[a-z]")
"""The beginning of a token that makes a word of a letter before it: ``A`` and ``nswer``, ``A`` and `` better``."""
POSITIVE = 1e-3
"""Nats by which a rounded log-probability may be above 0."""
LISTED = (20, 5)
"""Numbers of likely tokens to list. Most servers list 20, some no more than 5."""
TOKENS = 16
"""Tokens of an answer: a letter takes one to three, and more tell what was said instead, such as a refusal."""
PROBE = (Message("user", "Make up the beginning of a story."),)
TOLERANCE = 0.5
"""Nats by which a token's log-probability may differ between two temperatures, if both are those of the model."""
INSTEAD = (
    "Set feedback.method=decision if it has a decision endpoint, feedback.format=plain if it scores prompts, or "
    "feedback.method=votes; 'cai doctor' tells which works."
)


class Place(NamedTuple):
    """One place of an answer."""

    token: str
    """The token that the model said there."""
    alternatives: list[tuple[str, float]]
    """Likely tokens with their probabilities, the said one among them."""

    @property
    def probability(self) -> float:
        """Probability of the token that the model said."""
        return max(p for token, p in self.alternatives if token == self.token)


def places_of(reply: Any) -> list[Place]:
    """Return the places of an answer; an empty list if the server tells no log-probabilities.

    Raises BrokenReply for numbers that are none, and OnlyThought if the answer begins with a thought.
    """
    choice = first_choice(reply)
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    places = [_place(entry) for entry in content] if isinstance(content, list) else []
    start = "".join(place.token for place in places).lstrip()
    thoughts = [getattr(choice.message, field, None) for field in THOUGHT_FIELDS]
    if OPENING.match(start) or CHANNEL.match(start) or any(isinstance(t, str) and t.strip() for t in thoughts):
        raise OnlyThought("the model thinks before it answers, so its first token is no letter")
    return places


def _place(entry: Any) -> Place:
    token = str(getattr(entry, "token", ""))
    listed = getattr(entry, "top_logprobs", None)
    listed = listed if isinstance(listed, list) else []
    alternatives = [(str(getattr(one, "token", "")), _probability(one)) for one in listed]
    if not any(text == token for text, _ in alternatives):
        alternatives.append((token, _probability(entry)))
    return Place(token, alternatives)


def _probability(entry: Any) -> float:
    logprob = getattr(entry, "logprob", None)
    if not isinstance(logprob, int | float) or logprob != logprob or logprob > POSITIVE:
        raise BrokenReply(f"the server's log-probability is {str(logprob)[:40]}")
    return min(1.0, math.exp(max(logprob, -1e9)))


def letter_masses(places: Sequence[Place], letters: Sequence[str]) -> list[float]:
    """Return the probability that the answer begins with each letter, over the whole vocabulary.

    Of the tokens that only open a bracket, the one that the model said is followed to the next place.

    >>> letter_masses([Place("(", [("(", 0.8), ("A", 0.1)]), Place("B", [("B", 0.5), ("A", 0.25)])], "AB")
    [0.30000000000000004, 0.4]
    """
    masses, reached = dict.fromkeys(letters, 0.0), 1.0
    for place, after in zip(places, [*places[1:], None], strict=False):
        is_word = after is not None and CONTINUES.match(after.token) is not None
        for token, probability in place.alternatives:
            letter = LETTER.fullmatch(token)
            if letter and letter[1] in masses and not (is_word and token == place.token):
                masses[letter[1]] += reached * probability
        if not OPENS.fullmatch(place.token):
            break
        reached *= place.probability
    return [masses[letter] for letter in letters]


class LetterReader:
    """A chat server, asked for a letter, whose first tokens are read."""

    def __init__(self, name: str, model: str, send: Callable[[Fields], Awaitable[Any]], extras: Fields) -> None:
        """``send`` sends the fields of a request. ``extras`` are those that switch thinking off."""
        self._name, self._send = name, send
        self._fields: Fields = {"model": model, "max_tokens": TOKENS, "top_p": 1.0, "logprobs": True, **extras}
        self._probed = Probe(self._probe)

    async def read(self, conversation: Conversation, letters: Sequence[str]) -> Reading:
        """Return how probable it is that the answer begins with each letter.

        Raises ModelError if the server tells no log-probabilities, and RecordError if this reply holds none.
        """
        probed = await self._probed.result()
        fields = {**self._fields, **probed, "messages": as_messages(conversation)}
        return await whole_answer(lambda: self._ask(fields, letters))

    async def _ask(self, fields: Fields, letters: Sequence[str]) -> Reading:
        reply = await self._send(fields)
        places = places_of(reply)
        if not places:
            refusal = getattr(first_choice(reply).message, "refusal", None)
            raise (
                RefusedAnswer(f"the feedback model refused to judge: {str(refusal)[:80]!r}")
                if refusal
                else BrokenReply("the server's reply holds no log-probabilities")
            )
        masses = letter_masses(places, letters)
        total, (read, written) = sum(masses), tokens_of(getattr(reply, "usage", None))
        return Reading(
            tuple(mass / total if total else 0.0 for mass in masses),
            min(1.0, total),
            whole_characters("".join(place.token for place in places)),
            read,
            written,
        )

    async def _probe(self) -> Fields:
        """Return the fields with which this server tells the model's own probabilities. Raises ModelError if it cannot.

        Greedy answers are read, so that an opened bracket is followed to the likeliest letter. A server that tells
        probabilities after the temperature would then be certain of everything: there, the temperature is 1.
        """
        faults = []
        for number in LISTED:
            fields: Fields = {"top_logprobs": number, "temperature": 0.0}
            try:
                greedy, own = [
                    await whole_answer(
                        partial(self._first, fields | {"temperature": t}), lambda place: not place
                    )
                    for t in (0.0, 1.0)
                ]
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                faults.append(str(error)[:200])
                continue
            except OnlyThought as error:
                raise ModelError(
                    f"{self._name} cannot be asked for a letter: {error}. Switch its thinking off, or set "
                    "feedback.method=votes feedback.thinking_tokens=1024."
                ) from None
            if greedy is None or own is None or len(own.alternatives) < 2:
                break
            alike = [p for token, p in own.alternatives if token == greedy.token and p > 0]
            is_own = bool(alike) and abs(math.log(max(alike)) - math.log(greedy.probability)) <= TOLERANCE
            return fields if is_own else fields | {"temperature": 1.0}
        why = f" ({faults[-1]})" if faults else ""
        raise ModelError(
            f"{self._name} tells no log-probabilities of what it says (top_logprobs){why}. {INSTEAD}"
        )

    async def _first(self, fields: Fields) -> Place | None:
        """Return the first place of an answer; None if the server tells no log-probabilities."""
        reply = await self._send({**self._fields, **fields, "max_tokens": 2, "messages": as_messages(PROBE)})
        places = places_of(reply)
        return places[0] if places else None
