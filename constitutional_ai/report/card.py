"""Write a model card, ``model/README.md``, for every model that a run trained, in the format of Hugging Face's hub.

A card is written when its model is trained, and completed when the run is evaluated. It states the base model, the
settings and the metrics with their counts. Its names come from strangers, so they are escaped. (Templates of
``huggingface_hub.ModelCard`` escape nothing.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from constitutional_ai.constitutions.constitution import Constitution
from constitutional_ai.constitutions.control import describe_control
from constitutional_ai.models.load import hub_id
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Metric
from constitutional_ai.report.contents import LABEL
from constitutional_ai.report.page.formatting import interval, many, number
from constitutional_ai.report.page.rates import MEASURED, Row
from constitutional_ai.rl_cai.preference_model.held_out_report import PreferenceModelReport
from constitutional_ai.runs import layout
from constitutional_ai.runs.manifest import StageManifest
from constitutional_ai.runs.rows import load_json, write_atomically
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible


class ModelKind(NamedTuple):
    """The text about one kind of model."""

    title: str
    tag: str
    task: str
    """Name of its task on the hub."""
    roles: tuple[str, ...] = layout.ROLES
    """Roles of the models whose metrics the card shows."""


ABOUT = {
    layout.SL_CAI_MODEL: ModelKind("SL-CAI", "sl-cai", "text-generation", layout.ROLES[:2]),
    layout.PREFERENCE_MODEL: ModelKind("preference model", "preference-model", "text-classification"),
    layout.RL_CAI_MODEL: ModelKind("RL-CAI", "rl-cai", "text-generation"),
}
SOURCES = {
    "ai": "pairs labelled by the feedback model",
    "people": "pairs judged by people",
    "red_team": "red-team",
}


WITH_IT = (layout.CONSTITUTION, layout.RECIPE)
"""Files copied beside the card, so that they are passed on with the model."""


def write_cards(run: Run, recipe: Recipe, constitution: Constitution) -> None:
    """Write the cards of the models that the run has trained so far. A card that would not change is not written."""
    for stage in ABOUT:
        path, manifest = run.stage(stage) / layout.WEIGHTS / "README.md", run.manifest(stage)
        if manifest is None or not path.parent.is_dir() or run.stage(stage).is_symlink():
            continue  # the card of a linked stage is the other run's
        text = card(run, manifest, recipe, constitution)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text)
            for name in WITH_IT:
                write_atomically(path.with_name(name), (run.folder / name).read_text(encoding="utf-8"))


def card(run: Run, manifest: StageManifest, recipe: Recipe, constitution: Constitution) -> str:
    """Return the card of the model that the stage of ``manifest`` trained."""
    about, models = ABOUT[manifest.stage], recipe.models
    is_pm = manifest.stage == layout.PREFERENCE_MODEL
    base = (models.preference_model if is_pm else None) or models.pretrained
    by_pm = recipe.rl_cai.uses_preference_model
    learned = is_pm or (about.tag == "rl-cai" and by_pm)
    scores = run.stage(layout.PREFERENCE_MODEL) / layout.PREFERENCE_MODEL_REPORT
    return template().render(
        head=head(about, base),
        name=run.folder.name,
        about=about,
        base=base,
        recipe=recipe,
        constitution=constitution,
        manifest=manifest,
        layout=layout,
        control=describe_control(recipe.control, constitution),
        sources=[(SOURCES.get(s, s), count) for s, count in manifest.notes.get("sources", {}).items()],
        report=load_json(scores, PreferenceModelReport) if learned else None,
        measured=list(measured(run, about)),
        roles=[LABEL[role] for role in about.roles],
    )


def template() -> Template:
    page = Environment(  # noqa: S701  (not HTML: everything passes through `plain`)
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        finalize=lambda value: plain(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page.filters |= {"number": number, "range": interval, "many": many, "code": code}
    return page.get_template("card.md")


def head(about: ModelKind, base: str) -> Markup:
    """Return the metadata for the hub, on which a base model in a local folder has no name."""
    named, tags = hub_id(base), ["constitutional-ai", about.tag]
    known = {"library_name": "transformers", "pipeline_tag": about.task, "tags": tags}
    more = {"base_model": named} if named else {}
    return Markup(yaml.safe_dump(known | more, sort_keys=False))  # noqa: S704  (names that the hub allows)


def measured(run: Run, about: ModelKind) -> Iterator[tuple[Row, list[Metric | None]]]:
    """Yield rows of the evaluation for ``about.roles``; a preference model has only rows of its scores."""
    metrics = load_json(run.stage(layout.EVALUATION) / layout.METRICS, tuple[Metric, ...]) or ()
    by_name = {(m.name, m.model): m for m in metrics}
    for row in MEASURED:
        cells = [by_name.get((row.name, role)) for role in about.roles]
        if any(cells) and (about.tag != "preference-model" or row.name.endswith("_pm_score")):
            yield row, cells


def plain(text: str) -> str:
    r"""Return a stranger's text as one line of Markdown, escaped so that it is shown unchanged.

    >>> plain("<b>\n# [a](b)")
    '\\<b\\> \\# \\[a\\](b)'
    """
    if isinstance(text, Markup):
        return text
    return re.sub(r"([\\`*_{}\[\]<>|~&$!#])", r"\\\1", re.sub(r"\s+", " ", visible(text)))


def code(value: dict[str, Any]) -> Markup:
    """Return settings as YAML. They are indented, not fenced, because no text can end an indented block."""
    text = visible(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    return Markup("\n".join(f"    {line}" for line in text.splitlines()))  # noqa: S704
