"""Load pairs of answers that people compared, in the forms of public data sets (docs/data.md)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from constitutional_ai.data.lines import format_counts
from constitutional_ai.data.rendered import check, family_of, without_empty_thought, without_padding
from constitutional_ai.data.repeated_prompt import without_prompt
from constitutional_ai.data.row_files import read_rows
from constitutional_ai.data.turns import joined, turns_of
from constitutional_ai.errors import InputError, RecordError, shortened
from constitutional_ai.records import (
    Comparison,
    Completion,
    Conversation,
    Message,
    Prompt,
    Side,
    conversation_id,
)
from constitutional_ai.seeding import rng, seed_of


class Pair(NamedTuple):
    """A conversation, and the two replies to it that people compared."""

    id: str
    conversation: Conversation
    chosen: str
    rejected: str
    strength: float | None = None
    """How much better people found the chosen reply, in the file's own units; 0 is a tie, None if unknown."""


class Pairs(NamedTuple):
    """The pairs of a file."""

    usable: list[Pair]
    unusable: Mapping[str, int]
    """Number of records that were left out, by reason."""


class Form(NamedTuple):
    """The columns of a pair in the files of one kind of source.

    A row is of the first form of which it has an answer.
    """

    chosen: str
    rejected: str
    prompts: tuple[str, ...]
    """Columns with the prompt, or the dialogue that begins with it. They must agree where several are filled."""


FORMS = (
    # ours, TRL, H4, ShareGPT's in LLaMA-Factory, and hh-rlhf, which has no prompt
    Form("chosen", "rejected", ("prompt", "conversation", "messages", "conversations", "question")),
    # OpenAI
    Form("preferred_output", "non_preferred_output", ("input",)),
    # PKU-SafeRLHF: a third column has the number of the better one
    Form("response_0", "response_1", ("prompt",)),
)
UNREAD = ("instruction", "input", "query", "context", "history", "trajectory", "system_prompt")
"""Columns in which data sets of other forms keep a part of the prompt. What they say must stand in the prompt too."""
CHOICES = {"01", "10", "12", "21", "AB", "BA", "ab", "ba"}
OTHERS = re.compile("respon|answer|completion|candidate|generation", re.IGNORECASE)
"""Names of two answers that stand in other columns, and the names of such columns."""
ANSWERS = {answer for form in FORMS for answer in (form.chosen, form.rejected)}
KNOWN = "Known: " + ", ".join(f"'{form.chosen}' with '{form.rejected}'" for form in FORMS) + "."
Preferred = Literal["better", "safer"]
STRENGTHS = ("strength", "preference_strength", "margin")
SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
    ("rating_chosen", "rating_rejected"),
)


def load_pairs(path: Path, prefer: Preferred = "better") -> Pairs:
    """Load the pairs of a file: JSON lines, a JSON list, CSV or Parquet, in any of the ``FORMS``.

    Answers are texts, messages or whole dialogues. Where a row of PKU-SafeRLHF says both which response is safer and
    which is better (more helpful), ``prefer`` says which of them is meant. The strength is ``strength``,
    ``preference_strength`` or ``margin``, or the difference of two scores; 0 is a tie. Raises InputError naming the
    line and the field that are wrong.
    """
    usable: dict[str, Pair] = {}
    unusable: Counter[str] = Counter()
    for number, row in read_rows(path):
        try:
            pair = pair_of(row, prefer)
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from error
        if isinstance(pair, str):
            unusable[pair] += 1
        elif pair.id in usable:
            unusable["the same pair again"] += 1
        else:
            usable[pair.id] = pair
    return _not_empty(path, Pairs(list(usable.values()), dict(unusable)))


def load_decided_pairs(path: Path, prefer: Preferred = "better") -> Pairs:
    """Load the pairs of a file without its ties, which are counted. Raises InputError as ``load_pairs`` does."""
    pairs, unusable = load_pairs(path, prefer)
    decided = [pair for pair in pairs if pair.strength != 0]
    ties = {"a tie": len(pairs) - len(decided)} if len(decided) < len(pairs) else {}
    return _not_empty(path, Pairs(decided, {**unusable, **ties}))


def _not_empty(path: Path, pairs: Pairs) -> Pairs:
    if not pairs.usable:
        why = f" ({format_counts(pairs.unusable)})" if pairs.unusable else ""
        raise InputError(f"{path} holds no usable pairs{why}. Name another file.")
    return pairs


def sample_pairs(pairs: Sequence[Pair], count: int | None, seed: int) -> list[Pair]:
    """Return ``count`` pairs (None: all) in an order fixed by the seed."""
    return sorted(pairs, key=lambda p: seed_of(seed, "judge order", p.id))[:count]


def pair_of(row: Mapping[str, Any], prefer: Preferred = "better") -> Pair | str:
    """Return the pair of a row, or the reason why it holds none. Raises ValueError that names the wrong field."""
    form = _form(row, prefer)
    chosen, rejected = [_reply(row, key, form) for key in (form.chosen, form.rejected)]
    strength = _strength(row)
    *shared, better = chosen
    if shared != list(rejected[:-1]):
        return "the dialogues differ before the last reply"
    texts = better.content.strip(), rejected[-1].content.strip()
    conversation = _conversation(row, form, tuple(shared), texts)
    if conversation is None:
        return "the prompt is not the one of the dialogues"
    if not shared:
        _all_read(row, form, conversation)
    if {better.role, rejected[-1].role} != {"assistant"} or [m.role for m in conversation[-1:]] != ["user"]:
        return "no reply to a human turn"
    texts = without_prompt(texts, conversation[-1].content.strip())
    if not all((*texts, conversation[-1].content.strip())):
        return "an empty turn"
    if texts[0] == texts[1]:
        return "both replies are the same"
    if strength is not None and strength < 0:
        return "the rejected reply has the higher rating"
    name = conversation_id((*conversation, *[Message("assistant", t) for t in texts]))
    return Pair(name, conversation, *texts, strength=strength)


def _form(row: Mapping[str, Any], prefer: Preferred) -> Form:
    """Return the form of a row, with the chosen response first."""
    filled = [key for key, value in row.items() if value is not None]
    forms = [form for keys in (filled, row) for form in FORMS if form.chosen in keys or form.rejected in keys]
    if not forms:
        held = ", ".join(f"'{shortened(key)}'" for key in list(row)[:10])
        raise ValueError(f"holds no two answers, but {held or 'nothing'}. {KNOWN}")
    form = forms[0]
    for answer in (form.chosen, form.rejected):
        _filled(row, answer)
    if form.chosen != "response_0":
        return form
    ids = [f"{prefer}_response_id", "better_response_id", "safer_response_id"]
    key = next((key for key in ids if row.get(key) is not None), ids[0])
    _filled(row, key)
    if (number := _number(row, key)) not in (0, 1):
        raise ValueError(f"{key}: must be 0 or 1.")
    return form if number == 0 else form._replace(chosen=form.rejected, rejected=form.chosen)


def _filled(row: Mapping[str, Any], key: str) -> Any:
    if row.get(key) is None:
        raise ValueError(f"{key}: is missing. A pair needs it.")
    return row[key]


def _reply(row: Mapping[str, Any], key: str, form: Form) -> Conversation:
    """Return the turns of an answer. After a rendered prompt, a text is the rest of what the template rendered."""
    value = _filled(row, key)
    prompts = [row[name] for name in form.prompts if isinstance(row.get(name), str)]
    if not isinstance(value, str) or family_of(value) or not any(map(family_of, prompts)):
        return turns_of(value, key, "assistant")
    answer = without_padding(value)
    try:
        check(answer)
    except RecordError as error:
        raise ValueError(f"{key}: {error}.") from error
    return (Message("assistant", without_empty_thought(answer)),)


def _conversation(
    row: Mapping[str, Any], form: Form, shared: Conversation, replies: tuple[str, str]
) -> Conversation | None:
    """Return what both replies answer; None if the columns of the row differ about it.

    ``shared`` is how both dialogues begin, empty where the replies stand alone.
    """
    filled = {key: row[key] for key in form.prompts if row.get(key) not in (None, [], "")}
    prompts = [_same_turn(value, shared) or prompt_turns(value, key) for key, value in filled.items()]
    given = joined([shared, *[_without_reply(turns, shared, replies) for turns in prompts]])
    if given is None or joined([given[len(given) - len(shared) :], shared]) is None:
        return None
    if row.get("system") in (None, ""):
        return given
    system = turns_of([{"role": "system", "content": row["system"]}], "system", "system")
    return (
        given if given[:1] == system else (*system, *given) if given[:1] and given[0].role != "system" else None
    )


def _same_turn(prompt: Any, shared: Conversation) -> Conversation:
    """Return the human turn of the dialogues that a prompt repeats as a text, whatever it looks like; else none."""
    same = [
        m
        for m in shared
        if m.role == "user" and isinstance(prompt, str) and m.content.strip() == prompt.strip()
    ]
    return tuple(same[-1:])


def prompt_turns(value: Any, place: str) -> Conversation:
    """Return the turns of a prompt, also as OpenAI's ``{"messages": […]}``. Raises ValueError with the place."""
    if isinstance(value, dict) and "messages" in value:
        value, place = value["messages"], f"{place}.messages"
    return turns_of(value, place, "user")


def _all_read(row: Mapping[str, Any], form: Form, conversation: Conversation) -> None:
    """Raise ValueError, which names it, if a column holds a part of the prompt or of the answers that is not read."""
    for key in UNREAD:
        value = None if key in form.prompts else row.get(key)
        words = value.strip() if isinstance(value, str) else value
        if words and not (isinstance(words, str) and any(words in m.content for m in conversation)):
            raise ValueError(
                f"{key}: is not read, and the prompt does not hold it. Put all turns into 'prompt'."
            )
    names = f"{row[form.chosen]}{row[form.rejected]}" in CHOICES
    if names and any(OTHERS.search(key) and len(str(row[key])) > 2 for key in row.keys() - ANSWERS):
        raise ValueError(f"{form.chosen}: names an answer in another column. Put the answer itself here.")


def _without_reply(turns: Conversation, shared: Conversation, replies: tuple[str, str]) -> Conversation:
    """Return a prompt without its last turn where that is a reply, or the start ``Assistant:`` of one.

    It is one if it is among ``replies``, or if the dialogues say by how they begin what is replied to.
    """
    ends = turns and turns[-1].role == "assistant"
    return turns[:-1] if ends and (shared or turns[-1].content.strip() in ("", *replies)) else turns


def _strength(row: Mapping[str, Any]) -> float | None:
    """Return how much better the chosen reply is, below 0 if the rejected one is; None if the row does not say."""
    for key in STRENGTHS:
        if (number := _number(row, key)) is not None:
            return number if key == "margin" else abs(number)
    for pair in SCORES:
        chosen, rejected = [_number(row, key) for key in pair]
        if chosen is not None and rejected is not None:
            return chosen - rejected
        if chosen is not None or rejected is not None:
            raise ValueError(f"{pair[chosen is not None]}: is missing, because the other score is given.")
    return None


def _number(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{key}: must be a finite number.")
    return number


def comparison_of(pair: Pair, seed: int) -> tuple[Comparison, Side]:
    """Return the pair as a comparison, and the side of the chosen reply.

    The side is random, so that calibration is measured for probabilities below and above one half.
    """
    side: Side = rng(seed, "judge", pair.id).choice(("a", "b"))
    replies = (pair.chosen, pair.rejected) if side == "a" else (pair.rejected, pair.chosen)
    a, b = [Completion(text, "pairs", "stop", 0, max(1, len(text) // 4)) for text in replies]
    return Comparison(pair.id, Prompt.of(pair.conversation, "red_team", "pairs"), a, b), side
