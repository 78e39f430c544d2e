"""Print a benchmark as a table, write it to ``benchmarks/results/<name>.json``, and fail on a missed bar."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from constitutional_ai import machine
from constitutional_ai.runs.manifest import versions


@dataclass(frozen=True)
class Row:
    """One measured number."""

    name: str
    value: float
    unit: str
    bar: str = ""
    """The number that ``value`` has to reach, in words; empty where there is none."""
    holds: bool = True


def at_least(name: str, value: float, unit: str, bar: float | None) -> Row:
    """Return a row that holds if ``value`` reaches ``bar``; without a bar where that is None."""
    return Row(name, value, unit) if bar is None else Row(name, value, unit, f"at least {bar:,g}", value >= bar)


def under(name: str, value: float, unit: str, bar: float) -> Row:
    """Return a row that holds if ``value`` is under ``bar``."""
    return Row(name, value, unit, f"under {bar:,g}", value < bar)


def ratio(name: str, ratios: Sequence[float], bar: float | None = None) -> Row:
    """Return a row of the median of ``ratios``; its unit gives the lowest and the highest."""
    unit = f"times ({min(ratios):.2f} to {max(ratios):.2f})"
    return at_least(name, statistics.median(ratios), unit, bar)


def processor() -> dict[str, Any]:
    """Return the processor's name, and which of its units for bfloat16 there are (as Linux says).

    Results of processors with and without them cannot be compared.
    """
    name, instructions = machine.processor()
    return {
        "name": name,
        "amx_tiles": "amx_tile" in instructions,
        "avx512_bf16": "avx512_bf16" in instructions,
    }


def report(name: str, rows: list[Row]) -> None:
    """Write and print ``rows``. Exits with 1 if a bar is missed."""
    computer, cpu = f"{platform.machine()}, {os.cpu_count()} cores", processor()
    content = {
        "machine": computer,
        "processor": cpu,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    table = Table("", "measured", "unit", "bar", "holds", title=f"{name} ({cpu['name']}, {computer})")
    for row in rows:
        table.add_row(row.name, f"{row.value:,.3g}", row.unit, row.bar, "yes" if row.holds else "NO")
    Console().print(table)
    if not all(row.holds for row in rows):
        sys.exit(1)
