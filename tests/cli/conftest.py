"""The small run that tests of the report use, for commands that read one."""

from tests.report.conftest import empty_run, run

__all__ = ["empty_run", "run"]
