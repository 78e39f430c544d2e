"""Define ``cai check`` and ``cai constitution``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from constitutional_ai.cli.app import (
    PATH,
    Commands,
    echo,
    json_option,
    print_json,
    refuse_to_overwrite,
    seed_option,
    settings_option,
    terminal,
)

if TYPE_CHECKING:
    from constitutional_ai.constitutions.constitution import Constitution
    from constitutional_ai.constitutions.export_forms import Form


@click.command()
@click.argument("constitution")
@json_option
def check(constitution: str, as_json: bool) -> None:
    """Check CONSTITUTION and print a summary.

    CONSTITUTION is a YAML file, - for standard input, or the name of a built-in constitution. Beside mine.yaml, the
    folder mine.test of cai constitution test says which principles have a fault.
    """
    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.lint import lint
    from constitutional_ai.evaluation.principles.tested import warnings_beside

    loaded = load_constitution(constitution)
    scoped = sorted({kind for p in loaded.principles for kind in p.applies_to})
    if as_json:
        counts = {
            side: len(getattr(loaded, f"for_{side}")) for side in ("revision", "preference", "likelihood")
        }
        print_json(
            {
                "constitution": loaded.name,
                "version": loaded.digest,
                "principles": counts,
                "applies_to": scoped,
                "findings": [str(finding) for finding in lint(loaded)],
                "warnings": list(warnings_beside(Path(constitution), loaded)),
            }
        )
        return
    _summarise(loaded)
    if scoped:
        echo(f"  Some principles apply only to prompts of these kinds or tags: {', '.join(scoped)}")
    if findings := lint(loaded):
        echo(f"  {len(findings)} likely mistakes. To read them, type: cai constitution lint {constitution}")
    for warning in warnings_beside(Path(constitution), loaded):
        echo(f"  {warning}")


def _summarise(loaded: Constitution) -> None:
    echo(f"{loaded.name}, version {loaded.digest}")
    echo(f"  {len(loaded.for_revision)} principles for revisions (the paper has 16)")
    echo(f"  {len(loaded.for_preference)} principles for comparisons (the paper has 16)")
    if loaded.propositions:
        echo(f"  {len(loaded.propositions)} propositions about single answers, for rl_cai.reward=propositions")
    if not (loaded.for_revision and loaded.for_preference):
        echo("  A whole run needs both.")


def write_text(out: Path, text: str) -> None:
    """Write a file, and the folders that lead to it."""
    from constitutional_ai.runs.rows import write_atomically

    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, text)


@click.group(cls=Commands)
def constitution() -> None:
    """Import, draft, test and compare constitutions."""


@constitution.command("import")
@click.argument("source", type=PATH)
@click.option("--out", required=True, type=PATH, help="The YAML file to write.")
def import_(source: Path, out: Path) -> None:
    """Convert SOURCE to a constitution file.

    SOURCE is a copy of the paper's repository, an llm-swarm or NeMo-Aligner constitution, a folder or table that Polis
    exported, inverse-cai's results, OpenAI's propositions, traits, named definitions with weights, CSV with a header, a
    text file with one preference question per line, or a flat Markdown list.

    A document in prose has no principles yet: see cai constitution draft.
    """
    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.published import import_constitution

    refuse_to_overwrite(out)
    write_text(out, import_constitution(source).to_yaml())
    imported = load_constitution(out)
    echo(f"{out}: {imported.description}")
    _summarise(imported)
    echo(f"To find mistakes, run: cai constitution lint {out}")


@constitution.command()
@click.argument("file")
@click.pass_context
def lint(ctx: click.Context, file: str) -> None:
    """Print likely mistakes in FILE, a file or the name of a built-in one. The exit code is 1 if there are any."""
    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.lint import lint

    loaded = load_constitution(file)
    findings = lint(loaded)
    for finding in findings:
        echo(str(finding))
    echo(f"{loaded.name}, version {loaded.digest}: {len(findings)} findings")
    ctx.exit(1 if findings else 0)


@constitution.command()
@click.argument("old")
@click.argument("new")
def diff(old: str, new: str) -> None:
    """Print what changed from OLD to NEW, principle by principle."""
    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.lint import diff

    echo("\n".join(diff(load_constitution(old), load_constitution(new))))


@constitution.command()
@click.argument("file")
@click.option(
    "--to",
    "form",
    required=True,
    type=click.Choice(["yaml", "llm-swarm", "nemo-aligner"]),
    help="The form to write.",
)
@click.option("--out", required=True, type=PATH, help="The file to write; for nemo-aligner, the folder.")
def export(file: str, form: Form, out: Path) -> None:
    """Write FILE, a file or the name of a built-in one, in the form that another program reads."""
    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.export_forms import exported, left_behind

    loaded = load_constitution(file)
    refuse_to_overwrite(out)
    for name, text in exported(loaded, form).items():
        write_text(out / name if name else out, text)
    echo(f"{out}: {loaded.name}, version {loaded.digest}, as {form}")
    if lost := left_behind(loaded, form):
        echo(f"Not part of this form, and left behind: {', '.join(lost)}")


@constitution.command()
@click.argument("file")
@click.option("--judge", required=True, metavar="MODEL", help="The model that judges.")
@click.option(
    "--few-shots",
    default="built-in",
    show_default=True,
    help="Worked examples for models in the plain format: built-in, none, or a folder with the paper's files.",
)
@settings_option(help="A setting from the recipe's section feedback, for example method=likelihood.")
@seed_option
@click.option(
    "--out", type=PATH, help="Folder for the tables and the figure; cai check mine.yaml reads mine.test."
)
def test(file: str, judge: str, out: Path | None, **options: Any) -> None:
    """Test each principle and proposition of FILE before you use it, on 46 fixed pairs of answers.

    Of a principle: the share of pairs that it decides with confidence, whose winner changes with the order, in which
    the better answer wins, the longer of two that say the same, or a refusal of something harmless; and how often its
    negation reverses it. Then which principles say the same or the opposite. Of a proposition: how often the judge is
    confident, and says yes; how well it tells better answers from worse; and what length and refusals do to it. FILE
    may be the name of a built-in constitution. A test that was stopped continues.
    """
    from constitutional_ai.evaluation.principles.examine import examine_principles
    from constitutional_ai.evaluation.principles.principle_report import (
        agreements,
        principle_reports,
        principles_table,
    )
    from constitutional_ai.evaluation.principles.proposition_report import (
        proposition_reports,
        propositions_table,
    )

    answers, propositions = examine_principles(file, judge, out=out, say=partial(echo, err=True), **options)
    related = agreements(answers)
    if out:
        from constitutional_ai.report.figures.agreement_matrix import agreement_matrix

        for kind, content in agreement_matrix(list(answers), related).items():
            (out / f"agreement.{kind}").write_bytes(content)
    if answers:
        terminal().print(principles_table(principle_reports(answers), related))
    for part in propositions_table(proposition_reports(propositions)):
        terminal().print(part)


@constitution.command()
@click.argument("document", type=PATH)
@click.option("--model", metavar="MODEL", help="The model that writes the drafts. Without one they are empty.")
@click.option(
    "--judge", metavar="MODEL", help="A model that drops drafts which are not faithful to their clause."
)
@click.option(
    "--candidates",
    default=3,
    show_default=True,
    type=click.IntRange(1, 20),
    help="Number of candidates for each clause.",
)
@seed_option
@click.option("--out", required=True, type=PATH, help="The YAML file to write, and to edit.")
def draft(document: Path, out: Path, **options: Any) -> None:
    """Draft principles for each clause of DOCUMENT: prose in Markdown, plain text or HTML.

    Candidates that cannot be read, that the linter finds fault with or that repeat another are dropped. Those that are
    left stand below their clause in a file to edit, marked as drafts. No run accepts a draft: read it, correct it, and
    delete its line 'draft: true'.
    """
    from constitutional_ai.data.lines import format_counts
    from constitutional_ai.evaluation.principles.draft_principles import draft_document

    refuse_to_overwrite(out)
    drafted = draft_document(document, **options)
    write_text(out, drafted.text)
    echo(f"{out}: drafts for {drafted.clauses} clauses, {drafted.without} of them empty")
    if drafted.counts:
        echo(f"Candidates: {format_counts(drafted.counts)}")
    echo(f"Edit it, or decide about each draft in the terminal: cai constitution review {out}")
    echo(f"To see what is left to do, type: cai constitution coverage {out} {document}")


@constitution.command()
@click.argument("drafts", type=PATH)
def review(drafts: Path) -> None:
    """Decide about each draft in the file DRAFTS: accept, edit, reject or skip it, with one key.

    Each is shown with its clause and the other candidates for it. To edit opens your editor ($EDITOR); the draft stays
    one until you accept it. The file is written after each decision: quit when you like, and type the same command to
    continue.
    """
    from constitutional_ai.cli.review_drafts import review_drafts

    done = review_drafts(drafts)
    left = done["left"]
    echo(f"\n{drafts}: {done['accept']} accepted, {done['reject']} rejected, {left} drafts left")
    if left:
        echo("No run accepts the file before each is accepted or rejected. Type the same command to continue.")
    else:
        echo(f"To find mistakes, type: cai constitution lint {drafts}")


@constitution.command()
@click.argument("file")
@click.argument("document", type=PATH)
@click.option("--out", type=PATH, help="CSV file for a row for each clause and its principles.")
def coverage(file: str, document: Path, out: Path | None) -> None:
    """Print which clauses of DOCUMENT have no principle in FILE, which principles no clause, and what repeats itself.

    FILE may hold drafts, or be the name of a built-in constitution. Principles are compared with clauses by their
    anchors, and clauses with one another by their words.
    """
    from constitutional_ai.constitutions.clauses import read_clauses
    from constitutional_ai.constitutions.constitution import load_constitution
    from constitutional_ai.constitutions.coverage import coverage, coverage_csv, coverage_lines

    covered = coverage(load_constitution(file, drafts=True), document.name, read_clauses(document))
    if out:
        refuse_to_overwrite(out)
        write_text(out, coverage_csv(covered))
    echo("\n".join(coverage_lines(covered)))
