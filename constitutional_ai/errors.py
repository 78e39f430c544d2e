"""Everything that can go wrong, by who can mend it.

* CaiError                the user can mend it: one sentence, no traceback
    * InputError          a file, a key or a value the user wrote (also a ``ValueError``)
    * StageChanged        a stage on disk was made with other settings or inputs than those of now
    * TooManyFailures     more records failed than ``max_failures`` allows
    * GateClosed          the feedback model judges no better than chance and the recipe says stop
    * ModelError          a model or its server could not be loaded or reached
    * DiskFull            nothing more can be written; what was written is whole
* RecordError             one record failed; the runner writes a ``Failure`` and goes on
    * UnreadableAnswer    a model's answer is not an answer to the question put to it
        * RefusedAnswer   a feedback model refuses to judge
    * EmptyAnswer         a model answered with nothing

Everything else that is raised is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pydantic import ValidationError


class CaiError(Exception):
    """The user can mend this. The message says what is wrong, where, and what to type next."""


class InputError(CaiError, ValueError):
    """A file, key or value that the user wrote is wrong."""


class StageChanged(CaiError):
    """A stage on disk was made with other settings or inputs than those of now."""


class TooManyFailures(CaiError):
    """More records failed than the recipe's ``max_failures``."""


class GateClosed(CaiError):
    """The feedback model is at or below chance on the gate questions, and the recipe says ``gate: stop``."""


class ModelError(CaiError):
    """A model cannot be loaded, reached, or do what a stage needs of it."""


class DiskFull(CaiError, OSError):
    """No room is left on the disk of the run."""


class RecordError(Exception):
    """One record failed. A bad answer is data, not a crash: the runner keeps it as a ``Failure``."""


class UnreadableAnswer(RecordError):
    """The model's answer cannot be read as an answer to the question. It never becomes a label."""


class RefusedAnswer(UnreadableAnswer):
    """The feedback model refuses to judge. It never becomes a label, not even one half."""


class EmptyAnswer(RecordError):
    """The model answered with no text."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` with a leading space, or the known words when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(known)}."


class Fault(NamedTuple):
    """One thing that pydantic found wrong."""

    place: tuple[str | int, ...]
    """Keys and indices that lead to it; empty for the whole."""
    message: str
    kind: str
    """pydantic's name for the kind of error: ``extra_forbidden``, ``literal_error`` …"""
    value: Any
    """What stands there."""

    def __str__(self) -> str:
        place = ".".join(map(str, self.place))
        return f"{place}: {self.message}" if place else self.message


def first_fault(error: ValidationError) -> Fault:
    """Return the fault to name first: an unknown key, which may explain a missing one beside it, else the first.

    Where a value may have one of several types, pydantic reports a fault for each. The one deepest inside is taken: the
    value is nearest to that type, and the fault names the field that is wrong.
    """
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    first, unknown = faults[0], faults[0]["type"] == "extra_forbidden"
    types = [at for at, step in enumerate(first["loc"]) if _is_type(step)]
    if types and not unknown:
        around = first["loc"][: types[0]]
        first = max((f for f in faults if f["loc"][: types[0]] == around), key=lambda fault: len(fault["loc"]))
    place = [step for step in first["loc"][: len(first["loc"]) - unknown] if not _is_type(step)]
    place += first["loc"][-1:] if unknown else ()
    return Fault(tuple(place), first["msg"].removeprefix("Value error, "), first["type"], first["input"])


def _is_type(step: str | int) -> bool:
    """Return whether a step of pydantic's place is a type that was tried (``int``, ``tuple[Message, ...]``), no key.

    Keys are names in lower case.
    """
    return isinstance(step, str) and (step in TYPES or not step.isidentifier() or not step.islower())


TYPES = {"str", "int", "float", "bool", "none"}
