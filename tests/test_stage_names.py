"""The command line names the stages without importing the pipeline."""

from cai.cli.run import STAGES
from cai.pipeline import PIPELINE


def test_the_command_line_knows_the_stages_of_the_pipeline_in_order() -> None:
    assert tuple(PIPELINE) == STAGES
