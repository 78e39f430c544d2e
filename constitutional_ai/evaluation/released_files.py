"""Find the evaluation files of the paper's repository, and read their dialogues byte for byte."""

from __future__ import annotations

import re
from pathlib import Path

from constitutional_ai.models.model import ASSISTANT, HUMAN
from constitutional_ai.records import Conversation, Message, Role

TURN = re.compile(f"({HUMAN}|{ASSISTANT}) ")


def find_released(paper: Path | None, pattern: str) -> list[Path]:
    """Return the files whose names match ``pattern`` in a copy of the repository, or in its ``evals``."""
    folders = (paper, paper / "evals") if paper else ()
    return sorted(path for folder in folders for path in folder.glob(pattern))


def exact_turns(dialogue: str) -> Conversation:
    """Return the turns of a released dialogue, byte for byte."""
    roles: dict[str, Role] = {HUMAN: "user", ASSISTANT: "assistant"}
    _, *parts = TURN.split(dialogue)
    return tuple(Message(roles[who], text) for who, text in zip(parts[::2], parts[1::2], strict=True))
