"""Prints a benchmark as a table, writes it to ``benchmarks/results/<name>.json``, and fails on a missed bar."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from constitutional_ai.runs.manifest import versions


@dataclass(frozen=True)
class Row:
    name: str
    value: float
    unit: str
    bar: str
    """What is asked for, in words; empty where nothing is."""
    holds: bool = True


def report(name: str, rows: list[Row]) -> None:
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    content = {"machine": machine, "versions": versions(), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    table = Table("", "measured", "unit", "bar", "holds", title=f"{name} ({machine})")
    for row in rows:
        table.add_row(row.name, f"{row.value:,.3g}", row.unit, row.bar, "yes" if row.holds else "NO")
    Console().print(table)
    if not all(row.holds for row in rows):
        sys.exit(1)
