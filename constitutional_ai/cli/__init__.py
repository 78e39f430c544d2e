"""Define the command line. Commands import heavy modules inside functions, so that --help is instant."""

from __future__ import annotations

import click

from constitutional_ai.cli import (
    constitution,
    estimate,
    evaluate,
    hub,
    label,
    many_machines,
    models,
    read,
    recipe,
    run,
    sweep,
    view,
)
from constitutional_ai.cli.app import Sections, quiet_libraries
from constitutional_ai.engine.open import tune_process


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"]})
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


main.add_section(
    "Run the method", recipe.new, run.run, sweep.sweep, many_machines.merge, estimate.estimate, recipe.recipe
)
main.add_section("Constitutions", constitution.check, constitution.constitution)
main.add_section("Choose models", models.doctor, models.judge)
main.add_section("Look at a run", view.runs, read.report, view.view, read.show, read.compare, read.chat)
main.add_section("Evaluate", evaluate.evaluate, models.harmfulness, label.label, read.figure)
main.add_section("Use the results elsewhere", models.score, models.serve, read.export, hub.push, hub.pull)
