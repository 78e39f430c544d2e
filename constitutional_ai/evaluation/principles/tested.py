"""Keep what a test found wrong beside the constitution, so that ``cai check`` can warn of it.

``cai constitution test mine.yaml --out mine.test`` leaves ``tested.json`` in that folder; it names the version that was
tested, because a fault of another version says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from constitutional_ai.constitutions.constitution import Constitution
from constitutional_ai.data.lines import read_text
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.principles.principle_report import PrincipleReport
from constitutional_ai.evaluation.principles.proposition_report import PropositionReport
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
    propositions_version: str = ""
    """Version of the propositions (``Constitution.propositions_digest``); empty if none was tested."""
    propositions: int = 0
    """Number of propositions that were tested."""
    proposition_faults: dict[str, list[str]] = field(default_factory=dict)
    """The same of the propositions."""


def tested_as(
    constitution: Constitution,
    judge: str,
    method: str,
    reports: Sequence[PrincipleReport],
    of_propositions: Sequence[PropositionReport] = (),
) -> str:
    """Return the text of ``tested.json``: what the reports say is wrong with this version of a constitution."""
    result = Tested(
        constitution=constitution.digest,
        judge=without_login(judge),
        method=method,
        principles=len(reports),
        faults={report.name: list(report.faults) for report in reports if report.faults},
        propositions_version=constitution.propositions_digest if of_propositions else "",
        propositions=len(of_propositions),
        proposition_faults={report.name: list(report.faults) for report in of_propositions if report.faults},
    )
    return json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n"


def warnings_beside(path: Path, constitution: Constitution) -> list[str]:
    """Return lines about the test whose folder is beside the file of a constitution; none if there is no such folder.

    Raises InputError if its ``tested.json`` cannot be read.
    """
    file = path.with_suffix(ENDING) / TESTED
    if not file.is_file():
        return []
    try:
        result = TypeAdapter(Tested).validate_json(read_text(file, largest=LARGEST))
    except ValidationError as error:
        raise InputError(f"{file} is no result of cai constitution test. Delete it, and test again.") from error
    by = f"tested by {result.judge} with method {result.method}"
    if result.constitution != constitution.digest:
        return [visible(f"{by}, but in version {result.constitution}: test this version, too")]
    lines = _summary(by, result.faults, result.principles, "principles") if result.principles else []
    if result.propositions and result.propositions_version != constitution.propositions_digest:
        lines.append(f"{by}, but with other propositions: test these, too")
    elif result.propositions:
        lines += _summary(by, result.proposition_faults, result.propositions, "propositions")
    return [visible(line) for line in lines]


def _summary(by: str, faults: dict[str, list[str]], tested: int, what: str) -> list[str]:
    return [
        f"{by}: {len(faults)} of {tested} {what} have a fault",
        *(f"{k}: {', '.join(v)}" for k, v in faults.items()),
    ]
