from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.errors import DiskFull, InputError, RecordError, StageChanged, TooManyFailures
from constitutional_ai.records import Checkpoint, Completion, Message, Prompt, Response
from constitutional_ai.runs.folder import open_run, read_run
from constitutional_ai.runs.run import Run, Trained, digest_of
from constitutional_ai.runs.runner import Pass, Silent

PROMPT = Prompt.of((Message("user", "Hi"),), "helpful", "test")
CONFIG: dict[str, Any] = {"seed": 0, "revisions.rounds": 4}
INPUTS = {"prompts": "aaaa", "constitution": "bbbb"}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(tmp_path / "run", {"recipe.yaml": "seed: 0\n"}, Silent()) as opened:
        yield opened


def make(
    run: Run, config: dict[str, Any] = CONFIG, inputs: dict[str, str] = INPUTS, fail: int = 0
) -> list[str]:
    """Makes stage 01 of five records, of which the last ``fail`` fail; says which steps ran."""
    asked: list[str] = []

    async def step(name: str) -> Response:
        asked.append(name)
        if int(name) >= 5 - fail:
            raise RecordError("bad")
        return Response(name, PROMPT, Completion("x", "m", "stop", 2, 1))

    async def passes() -> AsyncIterator[Pass[str, Response]]:
        yield Pass({str(n): str(n) for n in range(5)}, step)

    limited = replace(run, concurrency=1, max_failures=1)
    limited.make_rows("01-responses", Response, passes, config=config, inputs=inputs)
    return asked


def test_a_stage_is_done_if_and_only_if_its_stage_json_exists(run: Run) -> None:
    assert make(run) == ["0", "1", "2", "3", "4"]
    assert make(run) == []
    (run.stage("01-responses") / "stage.json").unlink()
    assert run.manifest("01-responses") is None
    assert make(run) == []  # nothing was owed, so the stage is only finished anew
    assert run.manifest("01-responses") is not None


def test_the_manifest_of_a_stage_holds_its_settings_inputs_and_cost(run: Run) -> None:
    make(run, fail=1)
    done = run.manifest("01-responses")
    assert done is not None
    assert (done.config, done.inputs) == (CONFIG, INPUTS)
    assert (done.records, done.failures, done.prompt_tokens, done.completion_tokens) == (4, 1, 8, 4)
    assert done.output == run.output_digest("01-responses")
    assert "python" in done.versions


def test_a_stage_with_too_many_failures_is_not_done(run: Run) -> None:
    with pytest.raises(TooManyFailures):
        make(run, fail=2)
    assert run.manifest("01-responses") is None
    assert make(run) == ["3", "4"]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("config", "inputs", "said"),
    [
        (
            {**CONFIG, "revisions.rounds": 2},
            INPUTS,
            "01-responses was made with revisions.rounds: 4, the recipe now says 2. "
            "Pass --redo 01-responses, or use a new run (out=...).",
        ),
        (CONFIG, {**INPUTS, "prompts": "cccc"}, "01-responses was made from another version of prompts."),
        (CONFIG, {"prompts": "c", "constitution": "c"}, "another version of constitution and prompts."),
    ],
)
def test_a_stage_with_other_settings_or_inputs_is_refused_and_kept(
    run: Run, finished: bool, config: dict[str, Any], inputs: dict[str, str], said: str
) -> None:
    if finished:
        make(run)
    else:
        with pytest.raises(TooManyFailures):
            make(run, fail=4)
    before = (run.stage("01-responses") / "records.jsonl").read_bytes()
    with pytest.raises(StageChanged) as caught:
        make(run, config, inputs)
    assert said in str(caught.value)
    assert (run.stage("01-responses") / "records.jsonl").read_bytes() == before


def test_the_same_settings_after_json_are_the_same(run: Run) -> None:
    make(run, {"seed": 0, "tags": ("a", "b")})
    assert make(run, {"seed": 0, "tags": ("a", "b")}) == []


def test_a_removed_stage_is_made_again_with_new_settings(run: Run) -> None:
    make(run)
    run.remove_stages("01-responses", "02-revisions")
    assert not run.stage("01-responses").exists()
    assert len(make(run, {**CONFIG, "revisions.rounds": 2})) == 5


def edited(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"x", b"y", 1))


def lengthened(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("change", [edited, lengthened, truncated, emptied, Path.unlink])
def test_records_that_are_not_what_a_complete_stage_wrote_are_noticed(
    run: Run, change: Callable[[Path], None]
) -> None:
    make(run)
    file = run.stage("01-responses") / "records.jsonl"
    before, digest = file.read_bytes(), run.output_digest("01-responses")
    change(file)
    for read in (
        lambda: run.rows("01-responses", Response),
        lambda: len(run.stored_rows("01-responses", Response)),
        lambda: run.output_digest("01-responses"),
        lambda: read_run(run.folder).rows("01-responses", Response),
        lambda: make(run),
    ):
        with pytest.raises(InputError, match=r"01-responses/records\.jsonl was .* with --redo 01-responses"):
            read()
    file.write_bytes(before)
    assert run.output_digest("01-responses") == digest
    assert len(run.rows("01-responses", Response)) == 5


def test_records_of_a_stage_that_is_not_complete_may_be_mended(run: Run) -> None:
    with pytest.raises(TooManyFailures):
        make(run, fail=2)
    truncated(run.stage("01-responses") / "records.jsonl")
    assert [row.id for row in run.rows("01-responses", Response)] == ["0"]
    assert make(run) == ["1", "2", "3", "4"]


def test_a_model_is_trained_once(run: Run) -> None:
    trained = []

    def train(folder: Path) -> Trained:
        trained.append(folder.name)
        return Trained(Checkpoint(str(folder / "model"), "base", "d1gest"), 7, {"too_long": 3})

    for _ in range(2):
        run.make_model("03-sl-cai-model", train, config=CONFIG, inputs=INPUTS)
    assert trained == ["03-sl-cai-model"]
    assert run.output_digest("03-sl-cai-model") == "d1gest"
    assert run.manifest("03-sl-cai-model").records == 7
    assert run.manifest("03-sl-cai-model").notes == {"base_model": "base", "too_long": 3}


def test_a_training_that_fails_leaves_no_complete_stage(run: Run) -> None:
    def train(folder: Path) -> Trained:
        raise DiskFull("full")

    with pytest.raises(DiskFull):
        run.make_model("03-sl-cai-model", train, config=CONFIG, inputs=INPUTS)
    assert run.manifest("03-sl-cai-model") is None


def test_a_stage_gives_its_records_in_the_same_order_when_it_is_made_and_when_it_is_read(run: Run) -> None:
    async def later_ones_are_faster(name: str) -> Response:
        await asyncio.sleep(0.01 - int(name) / 1000)
        return Response(name, PROMPT, Completion("x", "m", "stop", 2, 1))

    async def passes() -> AsyncIterator[Pass[str, Response]]:
        yield Pass({str(n): str(n) for n in range(5)}, later_ones_are_faster)

    how = {"config": CONFIG, "inputs": INPUTS}
    made = run.make_rows("01-responses", Response, passes, **how)
    assert [row.id for row in made] == ["0", "1", "2", "3", "4"]
    again = run.make_rows("01-responses", Response, passes, **how)
    assert list(again) == list(made) == run.rows("01-responses", Response)


# -- the folder


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with (
        pytest.raises(InputError, match="holds files that are not part of a run"),
        open_run(tmp_path, {}, Silent()),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_a_file_cannot_be_the_folder_of_a_run(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("x")
    folder = tmp_path / "file" / inside
    with pytest.raises(InputError, match="is a file, not a folder"), open_run(folder, {}, Silent()):
        pass


@pytest.mark.parametrize(
    "left", ["recipe.yaml", "recipe.yaml.part", "constitution.yaml.part", "run.json.part", ".lock"]
)
def test_a_run_killed_at_its_start_can_be_started_again(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("tor")
    with open_run(tmp_path, {"recipe.yaml": "seed: 0\n"}, Silent()) as opened:
        assert len(make(opened)) == 5


def test_a_second_process_is_refused_until_the_first_is_gone(run: Run) -> None:
    make(run)
    code = f"""
from dataclasses import replace
from pathlib import Path
from constitutional_ai.errors import InputError
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.runner import Silent
try:
    with open_run(Path({str(run.folder)!r}), {{"recipe.yaml": "mine now"}}, Silent()):
        print("opened")
except InputError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"another process is working on {run.folder}" in result.stdout, result.stderr
    assert (run.folder / "recipe.yaml").read_text() == "seed: 0\n"


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    for _ in range(2):
        with open_run(tmp_path, {}, Silent()) as opened:
            make(opened)


def test_the_error_for_a_missing_run_names_the_runs_that_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no run in 'runs/dmo'\. Make one with: cai run demo"):
        read_run("runs/dmo")
    with open_run(Path("runs/demo"), {}, Silent()) as opened:
        make(opened)
    with pytest.raises(InputError, match=r"no run in 'runs/dmo'\. Runs here: runs/demo"):
        read_run("runs/dmo")
    assert len(read_run("runs/demo").rows("01-responses", Response)) == 5


def test_run_json_names_every_stage_that_was_started(run: Run) -> None:
    make(run)
    about = json.loads((run.folder / "run.json").read_text())
    assert about["stages"].keys() == {"01-responses"}
    assert about["stages"]["01-responses"].items() >= {"config": CONFIG, "inputs": INPUTS}.items()


def test_the_digest_of_names_keeps_their_order_and_bounds() -> None:
    assert len({digest_of(names) for names in (["a", "b"], ["b", "a"], ["ab"], ["a"], [])}) == 5
