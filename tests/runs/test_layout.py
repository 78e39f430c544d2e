"""The command line names the stages without importing the pipeline."""

from constitutional_ai.pipeline import PIPELINE
from constitutional_ai.runs.layout import STAGES


def test_the_command_line_knows_the_stages_of_the_pipeline_in_order() -> None:
    assert tuple(PIPELINE) == STAGES
