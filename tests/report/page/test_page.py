from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import GateAnswer, Metric
from constitutional_ai.report.contents import Contents, read_contents
from constitutional_ai.report.page.findings import QUESTIONS, finding
from constitutional_ai.report.page.formatting import number
from constitutional_ai.report.page.page import render, write_report
from constitutional_ai.rl_cai.preference_model.held_out_report import pm_report
from constitutional_ai.runs.run import Run
from tests.report.conftest import HOSTILE, STAGES, dirty, label, prompt, write_rows


class Elements(HTMLParser):
    """All elements and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_strangers_text_is_never_markup(run: Run) -> None:
    page = Elements(write_report(run).read_text())
    assert not {"script", "img", "i", "iframe", "link", "object"} & set(page.tags)
    assert page.tags.count("style") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("alert('x')") > 30


def test_the_page_asks_for_nothing_and_forbids_itself_to(run: Run) -> None:
    page = write_report(run).read_text()
    assert "default-src 'none'" in page
    assert "http:" not in page and "https:" not in page
    links = [value for name, value in Elements(page).attributes if name in ("src", "href")]
    assert all(value and value.startswith("#") for value in links)


def test_control_and_bidi_characters_are_made_visible(run: Run) -> None:
    page = write_report(run).read_text()
    assert "\x1b" not in page and "\u202e" not in page
    assert "␛[2J⟨U+202E⟩evil" in page


def test_ids_are_unique(run: Run) -> None:
    ids = [value for name, value in Elements(write_report(run).read_text()).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_same_run_gives_the_same_bytes(run: Run) -> None:
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_a_long_answer_is_folded_and_cut_where_the_file_must_do(run: Run) -> None:
    page = write_report(run).read_text()
    assert "more character" not in page and "the other 167,300 characters" in page
    assert page.count("The last 148,000 characters are in records.jsonl only.") == 3  # one answer of each model
    assert len(page) < 2_000_000


def test_a_run_of_which_nothing_is_made(empty_run: Run) -> None:
    page = Elements(write_report(empty_run).read_text())
    assert page.text.count("Not available yet") >= 6
    assert "0 of 8 stages" in page.text


@pytest.mark.parametrize("last", range(len(STAGES)))
def test_a_run_that_was_stopped(run: Run, last: int) -> None:
    for later in STAGES[last + 1 :]:
        for file in (run.folder / later).iterdir():
            file.unlink()
    said = Elements(write_report(run).read_text()).text
    assert ("Not available yet" in said) == (last < len(STAGES) - 1)


def test_a_half_made_stage_says_how_far_it_is(run: Run) -> None:
    (run.folder / "08-evaluation/stage.json").unlink()
    assert "21 records so far, not complete" in write_report(run).read_text()


@pytest.mark.parametrize("file", ["recipe.yaml", "constitution.yaml"])
def test_a_spoilt_text_is_shown_and_said_to_be_unreadable(run: Run, file: str) -> None:
    (run.folder / file).write_text("{ <u>nonsense")
    page = write_report(run).read_text()
    assert f"{file} is missing or cannot be read" in page
    assert "&lt;u&gt;nonsense" in page


@pytest.mark.parametrize(
    "file", ["08-evaluation/metrics.json", "03-sl-cai-model/stage.json", "07-rl-cai-model/metrics.jsonl"]
)
def test_a_spoilt_record_is_named(run: Run, file: str) -> None:
    (run.folder / file).write_text("{not json\n")
    with pytest.raises(InputError, match=file):
        write_report(run)


def test_nothing_measured_is_not_zero(run: Run) -> None:
    empty = [{"name": "objection_rate", "model": "start", "value": None, "low": None, "high": None, "count": 0}]
    (run.folder / "08-evaluation/metrics.json").write_text(json.dumps(empty))
    said = Elements(render(read_contents(run))).text
    assert "Objections to red-team prompts: not measured." in said
    assert number(None) == number(float("nan")) == "not measured"


CHANGES = {
    (0.34, 0.19, 0.49): ("rose", True, "rose from 0.17 to 0.51 (change +0.34, 95 % interval +0.19 to +0.49"),
    (-0.1, -0.15, -0.05): ("fell", False, "fell from 0.17 to 0.07 (change −0.10, 95 % interval −0.15 to −0.05"),
    (0.02, -0.05, 0.09): ("no measurable change", None, "did not measurably change: 0.17, then 0.19"),
    (0.0, None, None): ("no interval", None, "0.17, then 0.17 (change 0.00, the same on all 64 prompts"),
    (None, None, None): ("not measured", None, "not measured"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_moved_in_words(run: Run, change: tuple[float | None, float | None, float | None]) -> None:
    outcome, wanted, words = CHANGES[change]
    value, low, high = change
    metrics = (
        Metric("objection_rate", "start", 0.17, 0.1, 0.3, 64),
        Metric("objection_rate", "sl-cai", 0.17 + (value or 0), 0.4, 0.6, 64),
        Metric("objection_rate_change", "sl-cai", value, low, high, 64),
    )
    found = finding(QUESTIONS[0], "sl-cai", "start", with_metrics(read_contents(run), metrics))
    assert (found.outcome, found.wanted) == (outcome, wanted)
    assert words in found.text


def with_metrics(contents: Contents, metrics: tuple[Metric, ...]) -> Contents:
    return replace(contents, metrics=metrics)


def test_rl_cai_is_compared_with_sl_cai_prompt_by_prompt(run: Run) -> None:
    # sl-cai objects to 4 of 4, rl-cai to 2 of 4: changes 0, 0, -1, -1, of mean -0.5; the interval holds 0.
    found = finding(QUESTIONS[0], "rl-cai", "sl-cai", read_contents(run))
    assert found.outcome == "no measurable change"
    assert "1.00 (0.51 to 1.00), then 0.50 (0.15 to 0.85) (change −0.50" in found.text


def test_revisions_are_counted_and_what_was_cleaned_away_is_said(run: Run) -> None:
    said = Elements(write_report(run).read_text()).text
    assert "In all: 4 revisions." in said and "left out: " not in said and "cut off: " not in said
    dirty(run, cut=HOSTILE, fault="repetition")
    page = Elements(write_report(run).read_text())
    assert "4 with an opener cut off; 4 neither built upon nor trained on (4 repetition)." in page.text
    assert page.text.count("left out: it loops") == page.text.count("cut off: <script>") == 3
    assert "script" not in page.tags


def test_the_page_says_which_rounds_were_learned_from(run: Run) -> None:
    assert "SL-CAI is trained on all versions" in write_report(run).read_text()
    recipe = Recipe(sl_cai={"rounds": 2})
    (run.folder / "recipe.yaml").write_text(recipe.to_yaml())
    assert "SL-CAI is trained on the versions of the first 2 rounds" in write_report(run).read_text()


def test_a_gate_at_chance_is_said_at_the_top(run: Run) -> None:
    said = Elements(write_report(run).read_text()).text
    assert "Do not rely on RL-CAI." in said
    assert "Not measurably better than chance on 8 questions." in said


@pytest.mark.parametrize("control", ["empty", "shuffled", "without:tact"])
def test_a_control_run_is_not_judged_as_an_experiment(run: Run, control: str) -> None:
    (run.folder / "recipe.yaml").write_text(Recipe(control=control).to_yaml())
    said = Elements(write_report(run).read_text()).text
    assert f"This is a control run (control: {control})." in said
    assert f"No verdict: this is a control run (control: {control})." in said
    for judged in (
        "Do not rely",
        "better than chance on 8",
        "Its labels may be noise",
        ": wanted",
        ": unwanted",
    ):
        assert judged not in said


def test_a_gate_of_ties_is_neither_right_nor_wrong(run: Run) -> None:
    ties = [GateAnswer(f"g{n}", label(prompt(f"gate {n}"), 0.5), "a") for n in range(48)]
    write_rows(run.folder / "05-preference-labels/gate.jsonl", ties)
    page = write_report(run).read_text()
    said = Elements(page).text
    assert "Undecided. It prefers neither answer to any of 48 questions." in said
    assert "48 of 48 answers are ties (1.00, 95 % interval 0.93 to 1.00)" in said
    assert "Worse than chance" not in said and "0.00 of" not in said
    assert "preferred neither answer to any of 48 clear questions" in said


def test_the_preference_model_is_shown_on_held_out_pairs(run: Run) -> None:
    page = write_report(run).read_text()
    said = Elements(page).text
    # Twenty pairs; scores 0.2 · n against 1.8, so their mean is (1.9 + 1.8) / 2.
    assert "Here the mean is 1.85 and the standard deviation" in said
    assert "over 40 held-out answers." in said
    # n = 10 has a label of one half, n = 9 equal scores: ties. The others are ranked as their labels.
    for row, cell in (
        ("ranks the pair like its label", "1.00<small>0.82 to 1.00</small><small>of 18"),
        ("ties: a label of 0.50, or equal scores", "0.10<small>0.03 to 0.30</small><small>of 20"),
    ):
        assert (
            page.partition(f"<th>{row}</th>")[2].partition("</tr>")[0].count(cell) == 2
        )  # its source, and all


def test_a_preference_model_without_held_out_pairs_is_said_to_be_unmeasured(run: Run) -> None:
    (run.folder / "06-preference-model/report.json").write_text(json.dumps(asdict(pm_report([]))))
    assert "Not measured: no pairs were held out." in write_report(run).read_text()


def test_a_run_that_generates_no_prompts_does_not_owe_their_stage(run: Run) -> None:
    with_it = write_report(run).read_text()
    shutil.rmtree(run.folder / "00-prompts")
    without = write_report(run).read_text()
    assert "00-prompts" in with_it and "00-prompts" not in without
    assert "Not available yet" not in Elements(without).text
    assert without.count('class="flow') == with_it.count('class="flow')


UNFINISHED = {
    "02-revisions": ("chains", "Revisions"),
    "05-preference-labels": ("labels", "Its labels"),
    "08-evaluation": ("answers", "Helpfulness against harmlessness"),
}


@pytest.mark.parametrize("stage", UNFINISHED)
def test_nothing_is_drawn_of_an_incomplete_stage(run: Run, stage: str) -> None:
    (run.folder / stage / "stage.json").unlink()
    records, heading = UNFINISHED[stage]
    contents = read_contents(run)
    assert getattr(contents, records) == () and not contents.complete(stage)
    assert contents.metrics == () or stage != "08-evaluation"
    said = Elements(write_report(run).read_text()).text
    after = said.partition(f"{heading}\n")[2].lstrip()
    assert after.startswith(f"Not available yet: this comes from stage {stage}.")


@pytest.mark.parametrize(("asked", "shown"), [(10, False), (48, True)])
def test_a_gate_that_was_not_asked_whole_gives_no_verdict(run: Run, asked: int, shown: bool) -> None:
    folder = run.folder / "05-preference-labels"
    for file in ("stage.json", "records.jsonl"):
        (folder / file).unlink()
    answers = [GateAnswer(f"g{n}", label(prompt(f"gate {n}"), 0.9), "a") for n in range(asked)]
    write_rows(folder / "gate.jsonl", answers)
    assert ("Better than chance." in Elements(write_report(run).read_text()).text) == shown


def test_the_log_of_a_training_that_still_runs_says_so(run: Run) -> None:
    assert "So far" not in write_report(run).read_text()
    (run.folder / "07-rl-cai-model/stage.json").unlink()
    assert "So far: 07-rl-cai-model is not complete." in write_report(run).read_text()


def test_an_unfinished_part_of_an_evaluation_is_left_out_and_named(evaluated: Run) -> None:
    assert "Matches" in write_report(evaluated).read_text()
    step = evaluated.folder / "evaluation/matches/1-choices"
    step.mkdir(parents=True)
    (step / "records.jsonl").touch()
    said = Elements(write_report(evaluated).read_text()).text
    assert "Left out: part matches is not finished." in said
    assert "Elo scores" not in said and "Helpful, honest and harmless" in said


def test_values_of_other_prompts_than_the_change_are_called_so(run: Run) -> None:
    contents = read_contents(run)
    metrics = [
        replace(m, count=m.count - 1) if (m.name, m.model) == ("objection_rate", "start") else m
        for m in contents.metrics
    ]
    said = finding(QUESTIONS[0], "sl-cai", "start", replace(contents, metrics=tuple(metrics))).text
    assert "(of 3 and 4 answers, of which 4 prompts have both)" in said
    assert "have both" not in finding(QUESTIONS[0], "sl-cai", "start", contents).text
