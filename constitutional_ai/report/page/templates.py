"""Load the templates of pages. Every text that they show is escaped, and its control characters become symbols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from constitutional_ai.report.page.formatting import duration, interval, many, number
from constitutional_ai.safe_text import visible

REPORT = Path(__file__).parent
"""Folder of the report's templates, whose macros and style other pages share."""


def environment(*folders: Path) -> Environment:
    """Return the environment of the templates in some folders, then in the report's."""
    pages = Environment(
        loader=FileSystemLoader([*folders, REPORT]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"number": number, "range": interval, "time": duration, "many": many, "visible": visible}
    return pages


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
