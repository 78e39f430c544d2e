"""Format numbers for readers, the same on every page and card."""

from __future__ import annotations

import math
from collections.abc import Sequence

from constitutional_ai.records import Metric


def number(value: float | None) -> str:
    """Return a number with two decimals and a true minus sign, or a text for None.

    >>> number(-0.5), number(None)
    ('−0.50', 'not measured')
    """
    if value is None or not math.isfinite(value):
        return "not measured"
    return f"{value:.1f}".replace("-", "−") if abs(value) >= 20 else f"{value:.2f}".replace("-", "−")


def signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value)


def interval(metric: Metric | None) -> str:
    """Return the ends of an interval, which may be open at one end, such as for a model that won every match."""
    if metric is None or (metric.low is None and metric.high is None):
        return "no interval"
    if metric.low is None or metric.high is None:
        return f"above {number(metric.low)}" if metric.high is None else f"below {number(metric.high)}"
    return f"{number(metric.low)} to {number(metric.high)}"


def with_interval(metric: Metric) -> str:
    return f"{number(metric.value)} ({interval(metric)})"


def many(count: int, noun: str = "") -> str:
    """Return a count with separators and its noun.

    >>> many(1234, "record"), many(1, "record")
    ('1,234 records', '1 record')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}".strip() if noun else f"{count:,}"


def duration(seconds: float) -> str:
    """Return a time in its two largest units.

    >>> duration(18.4), duration(153.6), duration(7260)
    ('18 s', '2 min 34 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    return f"{minutes} min {whole % 60} s" if hours == 0 else f"{hours} h {minutes % 60} min"


def listed(parts: Sequence[str]) -> str:
    """Return parts as an English list.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
