"""Keep what a test found wrong beside the constitution, so that ``cai check`` can warn of it.

``cai constitution test mine.yaml --out mine.test`` leaves ``tested.json`` in that folder; it names the version that was
tested, because a fault of another version says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from constitutional_ai.data.lines import read_text
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.principles.principle_report import PrincipleReport
from constitutional_ai.safe_text import visible, without_login

TESTED, ENDING = "tested.json", ".test"
LARGEST = 4_000_000


@dataclass(frozen=True, slots=True)
class Tested:
    """What a test of principles found wrong."""

    constitution: str
    """Version of the constitution (``Constitution.digest``)."""
    judge: str
    method: str
    principles: int
    """Number of principles that were tested."""
    faults: dict[str, list[str]]
    """What is surely wrong with a principle, by its name; those without a fault are left out."""


def tested_as(digest: str, judge: str, method: str, reports: Sequence[PrincipleReport]) -> str:
    """Return the text of ``tested.json``: what the reports on the principles of a version say is wrong."""
    faults = {report.name: list(report.faults) for report in reports if report.faults}
    result = Tested(digest, without_login(judge), method, len(reports), faults)
    return json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n"


def warnings_beside(constitution: Path, digest: str) -> list[str]:
    """Return lines about the test whose folder is beside a constitution; none if there is no such folder.

    Raises InputError if its ``tested.json`` cannot be read.
    """
    file = constitution.with_suffix(ENDING) / TESTED
    if not file.is_file():
        return []
    try:
        result = TypeAdapter(Tested).validate_json(read_text(file, largest=LARGEST))
    except ValidationError as error:
        raise InputError(f"{file} is no result of cai constitution test. Delete it, and test again.") from error
    by = f"tested by {result.judge} with method {result.method}"
    if result.constitution != digest:
        return [visible(f"{by}, but in version {result.constitution}: test this version, too")]
    summary = f"{by}: {len(result.faults)} of {result.principles} principles have a fault"
    return [visible(line) for line in (summary, *(f"{k}: {', '.join(v)}" for k, v in result.faults.items()))]
