"""The small run that tests of the report use, for commands that read one."""

from tests.report.conftest import begun, run

__all__ = ["begun", "run"]
