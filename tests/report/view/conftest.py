"""The small run that tests of the report use."""

from tests.report.conftest import empty_run, evaluated, run

__all__ = ["empty_run", "evaluated", "run"]
