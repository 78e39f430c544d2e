"""Leave out or rename the fields of a request that a server refuses.

Servers differ in what they take: OpenAI's reasoning models refuse ``max_tokens`` and any temperature but 1, others a
seed, a stop string, or a ``top_p`` of 1. A refusal costs one request, and is not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Fields = dict[str, Any]

RENAMED = {"max_tokens": "max_completion_tokens"}
EFFORTS = ("none", "minimal", "low")
"""Values of ``reasoning_effort`` that think least, in the order in which they are tried."""
NEEDED = {"model", "messages", "prompt", "logprobs", "top_logprobs"}
EXTRAS = ("chat_template_kwargs", "reasoning_effort")
"""Fields of today, which strict servers of yesterday refuse without naming them."""
REFUSAL = re.compile(
    r"unsupported|not (?:supported|permitted|allowed|accepted|recogni[sz]ed|available|valid|a valid)|unrecogni[sz]ed|"
    r"unknown|unexpected|invalid|extra|does(?: not|n't) (?:support|accept|allow|take)|only the default|deprecated|"
    r"must be|should be|cannot|can't|forbidden|ignored|use '?`?max_(?:completion_)?tokens",
    re.IGNORECASE,
)
TOO_LONG = re.compile(
    r"too (?:long|large|many|big|high)|exceed|maximum|context|at most|less than or equal", re.IGNORECASE
)


class ServerFields:
    """What one server has been found to refuse."""

    def __init__(self, server: str, say: Callable[[str], None]) -> None:
        self._server, self._say = server, say
        self._dropped: set[str] = set()
        self._values: Fields = {}
        self._names: dict[str, str] = {}

    def accepted(self, fields: Fields) -> Fields:
        """Return the fields of a request without those that the server refuses, and with its own names."""
        kept = {
            name: self._values.get(name, value) for name, value in fields.items() if name not in self._dropped
        }
        return {self._names.get(name, name): value for name, value in kept.items()}

    def learn(self, fields: Fields, sent: Fields, message: str) -> bool:
        """Return whether ``fields`` are worth another try, after ``sent`` was refused with status 400 or 422."""
        if self.accepted(fields) != sent:
            return True  # another request has learned it meanwhile
        name = self._refused(sent, message)
        if name is None:
            return False
        own = next((ours for ours, theirs in self._names.items() if theirs == name), name)
        if own in RENAMED and own == name:
            self._names[own] = RENAMED[name]
            self._say(f"{self._server} refuses {name}: it gets {RENAMED[name]} instead.")
        elif own == "reasoning_effort" and sent[name] in EFFORTS[:-1]:
            self._values[own] = EFFORTS[EFFORTS.index(sent[name]) + 1]
        else:
            self.drop(own)
        return True

    def drop(self, *names: str) -> None:
        """Leave fields out from now on, and say so once."""
        for name in set(names) - self._dropped:
            self._dropped.add(name)
            if name not in EXTRAS:
                self._say(f"{self._server} refuses {name}, so requests leave it out: its own default holds.")

    def _refused(self, fields: Fields, message: str) -> str | None:
        """Return the field that the message says is refused; None if it names none, or refuses a value."""
        if not REFUSAL.search(message):
            return None
        sent = [name for name in fields if name not in NEEDED and _is_named(name, message)]
        if not sent:
            return None
        first = min(sent, key=lambda name: message.find(name))
        too_long = TOO_LONG.search(message) and first in RENAMED and RENAMED[first] not in message
        return None if too_long else first


def without_extras(sent: Fields, message: str) -> Fields | None:
    """Return a refused request without ``EXTRAS``, if the message may be about them; else None."""
    if TOO_LONG.search(message) or not any(name in sent for name in EXTRAS):
        return None
    return {name: value for name, value in sent.items() if name not in EXTRAS}


def _is_named(name: str, message: str) -> bool:
    return re.search(rf"(?<![\w]){name}(?![\w])", message) is not None
