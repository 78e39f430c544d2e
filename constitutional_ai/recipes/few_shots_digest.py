"""Tell one folder of worked examples from another, so that a stage names those that it was made with."""

from __future__ import annotations

from pathlib import Path

from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs.run import digest_of
from constitutional_ai.sl_cai.worked_critiques import critique_revision


def few_shots_digest(folder: Path | None) -> str:
    """Return the digest of the worked examples in a folder, or ``none``.

    Raises InputError when a file is not in the paper's format.
    """
    if folder is None:
        return "none"
    return digest_of([critique_revision(folder), repr(load_few_shots(folder))])
