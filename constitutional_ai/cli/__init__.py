"""Define the command line. Commands import heavy modules inside functions, so that --help is instant."""

from __future__ import annotations

import click

from constitutional_ai.cli import constitution, evaluate, label, many_machines, models, read, run, sweep, view
from constitutional_ai.cli.app import Commands, quiet_libraries
from constitutional_ai.engine.open import tune_process


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="constitutional-ai")
def main() -> None:
    """Constitutional AI: from a constitution to an evaluated model and a report.

    \b
    cai run demo            run the whole method on this machine, in minutes
    cai report runs/demo    write its report again
    cai chat runs/demo      talk to its three models side by side
    """
    tune_process()
    quiet_libraries()


for command in (
    *(run.run, run.estimate, sweep.sweep, many_machines.merge, constitution.check, constitution.constitution),
    *(read.show, read.report, read.compare, read.chat, models.harmfulness, models.judge, models.doctor),
    *(
        view.view,
        view.runs,
        evaluate.evaluate,
        read.figure,
        read.export,
        models.score,
        models.serve,
        label.label,
    ),
):
    main.add_command(command)
