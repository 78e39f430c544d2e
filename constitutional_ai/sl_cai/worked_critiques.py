"""Read worked critiques and revisions, the few-shot examples of requests in the plain format (SL-11).

Without them a pretrained model confuses critiques with revisions. Ours are in ``data/few_shots/``; the paper's are read
from a folder that the user names, in the same format. They never precede a first response (SL-12).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from constitutional_ai.data.worked_examples import CRITIQUE_REVISION, examples_in
from constitutional_ai.errors import InputError
from constitutional_ai.models.model import HUMAN


def critique_revision(folder: Path) -> str:
    r"""Return dialogues with critiques and revisions, concatenated; the text starts with ``\n\nHuman:``.

    ``folder`` is the paper's repository or its ``prompts/``. Raises InputError naming what is missing or wrong.
    """
    return "".join(_dialogue(*item) for item in examples_in(folder, CRITIQUE_REVISION))


def _dialogue(place: str, item: Any) -> str:
    r"""Return a dialogue without a final ``\n\nHuman:``, because the next dialogue starts with it.

    All but one of the paper's dialogues end with it.
    """
    if not (isinstance(item, str) and item.startswith(HUMAN)):
        raise InputError(f"{place} must be a dialogue that begins with {HUMAN!r}.")
    return item.removesuffix(HUMAN)
