from __future__ import annotations

import io

import pytest
from rich.console import Console

from constitutional_ai.errors import InputError
from constitutional_ai.records import Draft
from constitutional_ai.report.show.record_history import history_of
from constitutional_ai.runs.run import Run
from tests.report.conftest import BENIGN, HOSTILE, RED, completion, dirty, write_rows


def printed(run: Run, record: str) -> str:
    out = io.StringIO()
    Console(file=out, width=500, force_terminal=True, color_system=None).print(history_of(run, record))
    return out.getvalue()


@pytest.mark.parametrize("name", [RED[0].id, RED[0].id[:10], f"{RED[0].id}.0", f"{RED[0].id}.rl-cai"])
def test_any_id_tells_the_whole_life(run: Run, name: str) -> None:
    said = printed(run, name)
    places = [
        said.index(s)
        for s in ("user", "01-responses", "02-revisions", "critique", "revised", "P(a is better) = 0.100")
    ]
    assert places == sorted(places)
    assert all(f"08-evaluation  {role}: " in said for role in ("start", "sl-cai", "rl-cai"))
    assert "08-evaluation  sl-cai: objects, score 0.00" in said


def test_a_models_text_is_not_obeyed(run: Run) -> None:
    said = printed(run, RED[0].id)
    assert "\x1b[2J" not in said and "\u202e" not in said
    assert "[bold]b[/bold] ␛[2J⟨U+202E⟩evil" in said


def test_what_was_cut_off_a_revision_or_why_it_was_left_out_is_said(run: Run) -> None:
    assert "cut off" not in printed(run, RED[0].id) and "left out" not in printed(run, RED[0].id)
    dirty(run, cut="Here is the revised response: \x1b[2J", fault="identical")
    said = printed(run, RED[0].id)
    assert "left out: the same as the answer before, or as the critique" in said
    assert "cut off     Here is the revised response: ␛[2J" in said
    dirty(run, fault="a reason of a later version")
    assert "left out: a reason of a later version" in printed(run, RED[0].id)


def test_a_half_made_run_tells_what_there_is(run: Run) -> None:
    for stage in ("05-preference-labels", "08-evaluation"):
        (run.folder / stage / "records.jsonl").unlink()
    said = printed(run, RED[0].id)
    assert "04-comparisons" in said and "08-evaluation" not in said


def test_an_unknown_id_names_near_ones(run: Run) -> None:
    with pytest.raises(InputError, match=f"Did you mean .*{BENIGN[0].id}"):
        history_of(run, BENIGN[0].id[:-1] + "x")
    with pytest.raises(InputError, match="An example of an id"):
        history_of(run, "nothing like it")


def test_an_ambiguous_id_lists_five(run: Run) -> None:
    with pytest.raises(InputError, match=r"prefix of the ids of 15 prompts, such as (\w{16}, ){4}\w{16}\."):
        history_of(run, "")


def test_a_run_without_records(empty_run: Run) -> None:
    with pytest.raises(InputError, match="no records yet"):
        history_of(empty_run, "a")


def test_a_prompt_that_a_model_wrote_tells_after_which_others(run: Run) -> None:
    def draft(number: int, text: str) -> Draft:
        return Draft(f"red_team.{number}", "red_team", text, ("one", "two"), completion(text))

    write_rows(run.folder / "00-prompts/records.jsonl", [draft(1, HOSTILE), draft(10, "Another.")])
    said = printed(run, "red_team.1")  # an id, and the beginning of another
    assert "00-prompts  red_team.1, with the examples one, two" in said and "generated" in said
    assert "\x1b[2J" not in said and "Another." not in said
