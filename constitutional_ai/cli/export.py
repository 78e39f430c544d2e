"""``cai export``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="RUN_OR_EVALUATION")
@click.option(
    "--to", "form", type=click.Choice(["parquet", "inspect"]), required=True, help="Format of the files."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the files.")
def export(folder: str, form: str, out: Path) -> None:
    """Export the records of RUN_OR_EVALUATION for other tools.

    parquet: a file for each kind of record (responses, revisions, comparisons, labels, answers, metrics …), for
    datasets, pandas or DuckDB. inspect: a log for each evaluated model, for inspect_ai.
    """
    from constitutional_ai.report.export.inspect_log import to_inspect
    from constitutional_ai.report.export.parquet import to_parquet
    from constitutional_ai.runs.folder import read_run

    for one in (to_parquet if form == "parquet" else to_inspect)(read_run(folder), out):
        click.echo(f"{one.file}: {one.rows:,} {'rows' if form == 'parquet' else 'samples'}")
