from __future__ import annotations
from pathlib import Path
from cai.runs.run import Run
def write_report(run: Run) -> Path:
    return run.folder/"report.html"
