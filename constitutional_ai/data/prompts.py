"""Load red-team prompts, helpful prompts, and borderline prompts, which only look harmful (SL-1 to SL-4).

A file is JSONL. A row is ``{"prompt": "…"}`` or ``{"conversation": [{"role", "content"}, …]}``, with optional ``kind``,
``tags`` and ``split``. A conversation that ends with the assistant is a whole dialogue and gives one prompt for each
human turn (SL-1).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from constitutional_ai.data.lines import read_lines
from constitutional_ai.errors import InputError
from constitutional_ai.records import Conversation, Kind, Message, Prompt
from constitutional_ai.seeding import seed_of

BUILT_IN = Path(__file__).parent
HELD_OUT_SHARE = 0.2
"""Share of the prompts that is held out where rows have no ``split``. A prompt's id decides on which side it is."""
KINDS: tuple[Kind, ...] = ("red_team", "helpful", "borderline")
Split = Literal["train", "held_out"]


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore")

    prompt: str | None = Field(default=None, min_length=1)
    conversation: tuple[Message, ...] = ()
    kind: Kind | None = None
    tags: tuple[str, ...] = ()
    split: Split | None = None

    @model_validator(mode="after")
    def _is_a_prompt(self) -> _Row:
        if (self.prompt is None) == (not self.conversation):
            raise ValueError("needs either 'prompt' or 'conversation'")
        if not all(m.content.strip() for m in self.conversation) or (self.prompt and not self.prompt.strip()):
            raise ValueError("is empty")
        if all(m.role != "user" for m in self.conversation) and self.conversation:
            raise ValueError("has no human turn")
        return self


class Prompts(NamedTuple):
    """The prompts of a file."""

    train: list[Prompt]
    held_out: list[Prompt]


def load_prompts(name: str, kind: Kind) -> Prompts:
    """Load the prompts of the file ``name``; ``built-in`` means our own prompts of this ``kind``.

    Rows without a kind get ``kind``. Raises InputError naming the line that is wrong, and for an empty file.
    """
    path = BUILT_IN / f"{kind}.jsonl" if name == "built-in" else Path(name)
    parts: dict[Split, dict[str, Prompt]] = {"train": {}, "held_out": {}}
    for _, row in read_lines(path, _Row, "Name a JSONL file, or 'built-in'."):
        for conversation in prompts_of(_conversation(row)):
            prompt = Prompt.of(conversation, row.kind or kind, path.name, row.tags)
            parts[row.split or _split_of(prompt.id)][prompt.id] = prompt
    if not (parts["train"] or parts["held_out"]):
        raise InputError(f'{path} holds no prompts. Write one JSON object per line, such as {{"prompt": "…"}}.')
    for shared in parts["train"].keys() & parts["held_out"].keys():
        del parts["train"][shared]  # a prompt for evaluation is never trained on
    return Prompts(list(parts["train"].values()), list(parts["held_out"].values()))


def sample_prompts(prompts: Iterable[Prompt], count: int | None, seed: int) -> list[Prompt]:
    """Return ``count`` prompts (None: all) in an order fixed by the seed, so that a limit samples the whole file."""
    return sorted(prompts, key=lambda p: seed_of(seed, "order", p.id))[:count]


def prompts_of(conversation: Conversation) -> list[Conversation]:
    """Return the conversation itself when it ends with the human, else one prompt for each human turn (SL-1)."""
    if conversation[-1].role == "user":
        return [conversation]
    return [conversation[: i + 1] for i, m in enumerate(conversation) if m.role == "user"]


def _conversation(row: _Row) -> Conversation:
    return (Message("user", row.prompt),) if row.prompt is not None else row.conversation


def _split_of(prompt_id: str) -> Split:
    return "held_out" if seed_of("split", prompt_id) % 1000 < HELD_OUT_SHARE * 1000 else "train"
