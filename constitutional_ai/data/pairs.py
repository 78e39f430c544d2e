"""Load pairs of answers that people compared, in the formats of public data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AliasChoices, BaseModel, Field

from constitutional_ai.data.dialogues import as_turns
from constitutional_ai.data.lines import format_counts, read_lines
from constitutional_ai.errors import InputError
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
    """How much better people found the chosen reply, in the file's own units; None if the file does not say."""


class Pairs(NamedTuple):
    """The pairs of a file."""

    usable: list[Pair]
    unusable: Mapping[str, int]
    """Number of records that were left out, by reason."""


class _Row(BaseModel):
    prompt: str | Conversation = Field((), validation_alias=AliasChoices("prompt", "conversation", "messages"))
    chosen: str | Annotated[Conversation, Field(min_length=1)]
    rejected: str | Annotated[Conversation, Field(min_length=1)]
    strength: float | None = Field(None, validation_alias=AliasChoices("strength", "preference_strength"))


def load_pairs(path: Path) -> Pairs:
    """Load the pairs of a JSONL file, which may be compressed (``.jsonl.gz``).

    A row has ``chosen`` and ``rejected``, each a reply or a list of messages, and the prompt as ``prompt``,
    ``conversation`` or ``messages``. In the format of hh-rlhf both are whole dialogues, without a prompt. ``strength``
    or ``preference_strength`` may say how much better the chosen reply is; its sign is ignored. Raises InputError
    naming the line that is wrong.
    """
    usable: dict[str, Pair] = {}
    unusable: Counter[str] = Counter()
    for _, row in read_lines(path, _Row):
        pair = _pair(row)
        if isinstance(pair, str):
            unusable[pair] += 1
        elif pair.id in usable:
            unusable["the same pair again"] += 1
        else:
            usable[pair.id] = pair
    if not usable:
        why = f" ({format_counts(unusable)})" if unusable else ""
        raise InputError(f"{path} holds no usable pairs{why}. Name another file.")
    return Pairs(list(usable.values()), dict(unusable))


def sample_pairs(pairs: Sequence[Pair], count: int | None, seed: int) -> list[Pair]:
    """Return ``count`` pairs (None: all) in an order fixed by the seed."""
    return sorted(pairs, key=lambda p: seed_of(seed, "judge order", p.id))[:count]


def _pair(row: _Row) -> Pair | str:
    """Return the pair, or the reason why the row holds none."""
    given, chosen, rejected = as_turns(row.prompt, "user"), as_turns(row.chosen), as_turns(row.rejected)
    if given and given[-1] == Message("assistant", ""):  # the prompt ends in "\n\nAssistant:"
        given = given[:-1]
    shared, better, worse = chosen[:-1], chosen[-1], rejected[-1]
    conversation = shared if shared[: len(given)] == given else given + shared
    if shared != rejected[:-1]:
        return "the dialogues differ before the last reply"
    if {better.role, worse.role} != {"assistant"} or [m.role for m in conversation[-1:]] != ["user"]:
        return "no reply to a human turn"
    texts = better.content.strip(), worse.content.strip()
    if not all((*texts, conversation[-1].content.strip())):
        return "an empty turn"
    if texts[0] == texts[1]:
        return "both replies are the same"
    name = conversation_id((*conversation, *[Message("assistant", t) for t in texts]))
    return Pair(name, conversation, *texts, strength=None if row.strength is None else abs(row.strength))


def comparison_of(pair: Pair, seed: int) -> tuple[Comparison, Side]:
    """Return the pair as a comparison, and the side of the chosen reply.

    The side is random, so that calibration is measured for probabilities below and above one half.
    """
    side: Side = rng(seed, "judge", pair.id).choice(("a", "b"))
    replies = (pair.chosen, pair.rejected) if side == "a" else (pair.rejected, pair.chosen)
    a, b = [Completion(text, "pairs", "stop", 0, max(1, len(text) // 4)) for text in replies]
    return Comparison(pair.id, Prompt.of(pair.conversation, "red_team", "pairs"), a, b), side
