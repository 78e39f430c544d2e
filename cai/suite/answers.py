from __future__ import annotations

from cai.records import Metric
from cai.suite.suite import Suite


def measure(suite: Suite) -> list[Metric]:
    return []
