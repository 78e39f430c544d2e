"""The errors of the package, grouped by who can fix them.

* CaiError                the user can fix it: shown as one sentence, without a traceback
    * InputError          a file, a key or a value the user wrote (also a ``ValueError``)
    * StageChanged        a stage on disk was made with different settings or inputs
    * TooManyFailures     more records failed than ``max_failures`` allows, or all of them
    * GateClosed          the feedback model judges no better than chance and the recipe says ``gate: stop``
    * ModelError          a model or its server could not be loaded or reached
    * DiskFull            the disk is full; the files already written are intact
* RecordError             one record failed; the runner writes a ``Failure`` and continues
    * UnreadableAnswer    a model's answer cannot be read as an answer to the question
        * RefusedAnswer   a feedback model refuses to judge
        * LowLabelMass    a feedback model would rather say something else than one of the options
    * BrokenReply         a server's reply holds no answer at all
    * EmptyAnswer         a model returned no text
        * OnlyThought     a model spent all its tokens on a thought

Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class CaiError(Exception):
    """An error that the user can fix. The message says what is wrong, where, and what to type next."""


class InputError(CaiError, ValueError):
    """A file, key or value that the user wrote is wrong."""


class StageChanged(CaiError):
    """A stage on disk was made with different settings or inputs."""


class TooManyFailures(CaiError):
    """More records failed than the recipe's ``max_failures``, or all records of a stage."""


class GateClosed(CaiError):
    """The feedback model, or the reward of RL, fails its gate, and the recipe says that the run stops then."""


class ModelError(CaiError):
    """A model cannot be loaded or reached, or lacks an ability that a stage needs."""


class DiskFull(CaiError, OSError):
    """No room is left on the disk of the run."""


class RecordError(Exception):
    """One record failed. A bad answer is data, not a crash: the runner keeps it as a ``Failure``."""

    tokens: tuple[int, int] = (0, 0)
    """Tokens that the model read and wrote for it, where that is known and no completion says so."""


class UnreadableAnswer(RecordError):
    """The model's answer cannot be read as an answer to the question. It never becomes a label."""


class RefusedAnswer(UnreadableAnswer):
    """The feedback model refuses to judge. It never becomes a label, not even one half."""


class LowLabelMass(UnreadableAnswer):
    """The options together hold so little probability that their share says nothing. It never becomes a label."""


class BrokenReply(RecordError):
    """A server's reply holds no answer. It may hold one when the request is sent again."""


class EmptyAnswer(RecordError):
    """The model returned no text."""


class OnlyThought(EmptyAnswer):
    """The model thought and gave no answer. A thought is never taken for one."""


LONGEST_WORD = 100
"""Characters of a word that may be a misspelling, and of a value that is repeated in a message."""


def shortened(text: str, longest: int = LONGEST_WORD) -> str:
    """Return a text without its middle if it is longer than ``longest`` characters.

    >>> shortened("a recipe's value", 9)
    'a re…alue'
    """
    head = longest // 2
    return text if len(text) <= longest else f"{text[:head]}…{text[head + 1 - longest :]}"


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, as ``object_pairs_hook``. Raises ValueError if a key is written twice."""
    whole = dict(pairs)
    if len(whole) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key '{shortened(twice)}' is written twice: delete one")
    return whole


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` with a leading space, or a list of the known words when none is close."""
    known = sorted(known)
    if len(word) > LONGEST_WORD:  # which resembles none, and comparing would take minutes
        return f" Known: {', '.join(known)}."
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(known)}."


def missing_package(package: str, extra: str) -> str:
    """Return a sentence about a package that is not installed, with what to type, installed from a clone or not."""
    return (
        f"the package '{package}' is not installed. Type: pip install 'constitutional-ai[{extra}]', or in a clone of "
        f"the source: pip install --editable '.[{extra}]'"
    )


class Fault(NamedTuple):
    """One error that pydantic found."""

    place: tuple[str | int, ...]
    """Keys and indices of the wrong value; empty if the error is about the whole document."""
    message: str
    kind: str
    """pydantic's name for the kind of error: ``extra_forbidden``, ``literal_error`` …"""
    value: Any
    """The wrong value."""
    allowed: tuple[str, ...] = ()
    """The values that are allowed, where they can be listed."""

    def __str__(self) -> str:
        place = ".".join(map(str, self.place))
        return f"{place}: {self.message}" if place else self.message


def first_fault(error: ValidationError) -> Fault:
    """Return the most useful fault: an unknown key, which may be the misspelling of a missing one, else the first.

    For a union pydantic reports a fault for each member type. The most deeply nested one is returned: it belongs to the
    type that fits best, and names the wrong field.
    """
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    first, unknown = faults[0], faults[0]["type"] == "extra_forbidden"
    types = [at for at, step in enumerate(first["loc"]) if _is_type(step)]
    if types and not unknown:
        around = first["loc"][: types[0]]
        first = max((f for f in faults if f["loc"][: types[0]] == around), key=lambda fault: len(fault["loc"]))
    place = [step for step in first["loc"][: len(first["loc"]) - unknown] if not _is_type(step)]
    place += first["loc"][-1:] if unknown else ()
    details = first.get("ctx", {})
    allowed = (
        tuple(re.findall("'([^']*)'", details.get("expected", ""))) if first["type"] == "literal_error" else ()
    )
    return Fault(tuple(place), _plain(first, details), first["type"], first["input"], allowed)


WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "tuple": "a list",
    "dict": "an object with keys",
    "mapping": "an object with keys",
    "model": "an object with keys",
    "dataclass": "an object with keys",
}
"""What is wanted, by the beginning of pydantic's name for the kind of error."""
BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}
FIXED = {
    "missing": "is missing",
    "extra_forbidden": "is not a known key",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "json_invalid": "not JSON that can be read",
}


def _plain(fault: ErrorDetails, details: Mapping[str, Any]) -> str:
    """Return what is wrong in our words, which are the same for every kind of file; a validator of ours has its own."""
    kind, value = fault["type"], fault["input"]
    if kind == "value_error":
        return str(details["error"])
    if kind in BOUNDS:
        bound, words = BOUNDS[kind]
        return f"must be {words} {details[bound]:,.15g}, not {_shown(value)}"
    if kind in FIXED and details.get("min_length", 1) == 1:
        return FIXED[kind]
    if kind in ("too_short", "too_long"):
        bound = "min_length" if kind == "too_short" else "max_length"
        return f"must have {details[bound]} items, not {details['actual_length']}"
    wanted = next((words for start, words in WANTED.items() if kind.startswith(start)), None)
    wanted = details["expected"] if kind in ("literal_error", "enum") else wanted
    return f"must be {wanted}, not {_shown(value)}" if wanted else f"is not possible: {_shown(value)}"


def _shown(value: Any) -> str:
    """Return a wrong value as people write it; of lists and objects only what they are."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f"'{shortened(value, 60)}'"
        case dict():
            return "an object with keys"
        case list() | tuple():
            return "a list"
    return shortened(str(value), 60)


def _is_type(step: str | int) -> bool:
    """Return whether a step of pydantic's ``loc`` is a member type of a union (``int``, ``tuple[Message, ...]``).

    All other steps are indices or keys; keys are lower-case names.
    """
    return isinstance(step, str) and (step in TYPES or not step.isidentifier() or not step.islower())


TYPES = {"str", "int", "float", "bool", "none"}
