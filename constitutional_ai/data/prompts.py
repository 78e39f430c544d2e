"""Load red-team prompts, helpful prompts, and borderline prompts, which only look harmful (SL-1 to SL-4).

A file is JSON lines, CSV or Parquet. A row is ``{"prompt": "…"}`` or ``{"conversation": [{"role", "content"}, …]}``,
with optional ``kind``, ``tags`` and ``split``, or as a public data set writes it (``prompt_rows.py``). A conversation
that ends with the assistant is a whole dialogue and gives one prompt for each human turn (SL-1).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from constitutional_ai.data.prompt_rows import Split, prompt_row
from constitutional_ai.data.row_files import read_rows
from constitutional_ai.errors import InputError
from constitutional_ai.records import Conversation, Kind, Prompt
from constitutional_ai.seeding import seed_of

BUILT_IN = Path(__file__).parent
HELD_OUT_SHARE = 0.2
"""Share of the prompts that is held out where rows have no ``split``. A prompt's id decides on which side it is."""
KINDS: tuple[Kind, ...] = ("red_team", "helpful", "borderline")


class Prompts(NamedTuple):
    """The prompts of a file."""

    train: list[Prompt]
    held_out: list[Prompt]


def load_prompts(name: str, kind: Kind) -> Prompts:
    """Load the prompts of the file ``name``; ``built-in`` means our own prompts of this ``kind``.

    Rows without a kind get ``kind``. Raises InputError naming the line and the field that are wrong, and for an empty
    file.
    """
    path = BUILT_IN / f"{kind}.jsonl" if name == "built-in" else Path(name)
    parts: dict[Split, dict[str, Prompt]] = {"train": {}, "held_out": {}}
    for number, columns in read_rows(path, "Name a JSONL file, or 'built-in'."):
        try:
            row = prompt_row(columns)
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from error
        for conversation in prompts_of(row.conversation):
            prompt = Prompt.of(conversation, row.kind or kind, path.name, row.tags)
            parts[row.split or _split_of(prompt.id)][prompt.id] = prompt
    if not (parts["train"] or parts["held_out"]):
        raise InputError(f'{path} holds no prompts. Write one JSON object per line, such as {{"prompt": "…"}}.')
    for shared in parts["train"].keys() & parts["held_out"].keys():
        del parts["train"][shared]  # a prompt for evaluation is never trained on
    return Prompts(list(parts["train"].values()), list(parts["held_out"].values()))


def load_prompts_of_kind(name: str, kind: Kind) -> Prompts:
    """Load the prompts of one kind. Those of other kinds are left out, such as the unsafe half of XSTest.

    Raises InputError as ``load_prompts`` does, and when the file holds none of this kind.
    """
    loaded = load_prompts(name, kind)
    train, held_out = [[prompt for prompt in part if prompt.kind == kind] for part in loaded]
    if not (train or held_out):
        raise InputError(
            f"{name} holds no prompts of the kind '{kind}'. Name another file in prompts.{kind}.file."
        )
    return Prompts(train, held_out)


def sample_prompts(prompts: Iterable[Prompt], count: int | None, seed: int) -> list[Prompt]:
    """Return ``count`` prompts (None: all) in an order fixed by the seed, so that a limit samples the whole file."""
    return sorted(prompts, key=lambda p: seed_of(seed, "order", p.id))[:count]


def prompts_of(conversation: Conversation) -> list[Conversation]:
    """Return the conversation itself when it ends with the human, else one prompt for each human turn (SL-1)."""
    if conversation[-1].role == "user":
        return [conversation]
    return [conversation[: i + 1] for i, m in enumerate(conversation) if m.role == "user"]


def _split_of(prompt_id: str) -> Split:
    return "held_out" if seed_of("split", prompt_id) % 1000 < HELD_OUT_SHARE * 1000 else "train"
