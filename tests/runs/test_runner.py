from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitutional_ai.errors import InputError, ModelError, RecordError, TooManyFailures
from constitutional_ai.records import Completion, Failure, Message, Prompt, Response, Usage
from constitutional_ai.runs.rows import read_rows
from constitutional_ai.runs.runner import Pass, Silent, StageRows, run_rows
from constitutional_ai.seeding import rng

PROMPT = Prompt.of((Message("user", "Hi"),), "helpful", "test")


def record(name: str, text: str = "x") -> Response:
    return Response(name, PROMPT, Completion(text, "m", "stop", 2, 1))


async def plain_step(name: str) -> Response:
    return record(name)


class Kept(Silent):
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def start(self, stage: str, done: int, total: int) -> None:
        self.told.append(("start", done, total))

    def advance(self, stage: str, tokens: Usage, *, failed: bool) -> None:
        self.told.append((tokens.completion_tokens, failed))

    def finish(self, stage: str) -> None:
        self.told.append("finish")


def make(
    folder: Path,
    names: list[str],
    step: Callable[[str], Awaitable[Response]] = plain_step,
    *,
    concurrency: int = 4,
    max_failures: int = 0,
    progress: Silent | None = None,
) -> StageRows[Response]:
    async def one_pass() -> AsyncIterator[Pass[str, Response]]:
        yield Pass({name: name for name in names}, step)

    return asyncio.run(
        run_rows(
            folder,
            one_pass(),
            Response,
            concurrency=concurrency,
            max_failures=max_failures,
            progress=progress or Silent(),
        )
    )


def on_disk(folder: Path) -> list[str]:
    return [row.id for row in read_rows(folder / "records.jsonl", Response)]


NAMES = [str(n) for n in range(20)]


def test_records_come_back_in_the_order_of_the_items_whatever_finishes_first(tmp_path: Path) -> None:
    async def later_ones_are_faster(name: str) -> Response:
        await asyncio.sleep(0.02 - int(name) / 1000)
        return record(name)

    made = make(tmp_path, NAMES, later_ones_are_faster, concurrency=20)
    assert [r.id for r in made.records] == NAMES
    assert on_disk(tmp_path) == NAMES


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_no_more_than_concurrency_are_in_work_at_once(tmp_path: Path, concurrency: int) -> None:
    busy, most = 0, 0

    async def step(name: str) -> Response:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.001)
        busy -= 1
        return record(name)

    make(tmp_path, NAMES, step, concurrency=concurrency)
    assert most == min(concurrency, len(NAMES))


@settings(max_examples=15)
@given(st.integers(1, 30), st.randoms(use_true_random=False))
def test_seeded_results_do_not_depend_on_concurrency_or_timing(
    tmp_path_factory: pytest.TempPathFactory, concurrency: int, timing: random.Random
) -> None:
    async def step(name: str) -> Response:
        for _ in range(timing.randrange(4)):
            await asyncio.sleep(0)
        return record(name, str(rng(7, name).random()))

    made = make(tmp_path_factory.mktemp("stage"), NAMES, step, concurrency=concurrency)
    assert list(made.records) == [record(name, str(rng(7, name).random())) for name in NAMES]


def fails_on(*names: str) -> Callable[[str], Awaitable[Response]]:
    async def step(name: str) -> Response:
        if name in names:
            raise RecordError(f"{name} is bad")
        return record(name)

    return step


def test_a_failure_is_kept_and_the_rest_goes_on(tmp_path: Path) -> None:
    made = make(tmp_path, NAMES, fails_on("3", "7"), max_failures=2)
    assert [r.id for r in made.records] == [n for n in NAMES if n not in ("3", "7")]
    assert made.failures == 2
    kept = list(read_rows(tmp_path / "failures.jsonl", Failure))
    assert sorted(kept, key=lambda f: f.id) == [Failure(n, "RecordError", f"{n} is bad") for n in ("3", "7")]


def test_failed_records_are_tried_again(tmp_path: Path) -> None:
    make(tmp_path, NAMES, fails_on("3"), max_failures=1)
    asked: list[str] = []

    async def step(name: str) -> Response:
        asked.append(name)
        return record(name)

    made = make(tmp_path, NAMES, step)
    assert asked == ["3"]
    assert [r.id for r in made.records] == NAMES
    assert not (tmp_path / "failures.jsonl").exists()


def test_one_failure_too_many_stops_the_stage_and_keeps_its_records(tmp_path: Path) -> None:
    with pytest.raises(TooManyFailures, match=r"3 records of .* failed, the last with RecordError: 6 is bad"):
        make(tmp_path, NAMES, fails_on("2", "4", "6"), max_failures=2, concurrency=1)
    assert on_disk(tmp_path) == ["0", "1", "3", "5"]
    assert len(list(read_rows(tmp_path / "failures.jsonl", Failure))) == 3


@pytest.mark.parametrize("names", [["3"], NAMES[:3]])
def test_a_stage_in_which_all_records_fail_stops_and_is_tried_again(tmp_path: Path, names: list[str]) -> None:
    said = (
        rf"nothing was made in {tmp_path.name}: all {len(names)} records failed, the last with RecordError: "
        rf"{names[-1]} is bad\. See .*/failures\.jsonl"
    )
    with pytest.raises(TooManyFailures, match=said):
        make(tmp_path, names, fails_on(*names), max_failures=20, concurrency=1)
    assert len(list(read_rows(tmp_path / "failures.jsonl", Failure))) == len(names)
    assert [r.id for r in make(tmp_path, names).records] == names


def test_a_stage_without_items_or_with_older_records_is_no_stage_in_which_all_fail(tmp_path: Path) -> None:
    assert list(make(tmp_path, []).records) == []
    make(tmp_path, ["0"])
    assert make(tmp_path, ["0", "1"], fails_on("1"), max_failures=1).failures == 1


def test_a_resume_makes_only_the_missing_records(tmp_path: Path) -> None:
    make(tmp_path, NAMES[:5])
    with (tmp_path / "records.jsonl").open("ab") as file:
        file.write(b'{"id": "5", "torn')
    asked: list[str] = []

    async def step(name: str) -> Response:
        asked.append(name)
        return record(name)

    made = make(tmp_path, NAMES, step, concurrency=1)
    assert asked == NAMES[5:]
    assert [r.id for r in made.records] == NAMES
    assert on_disk(tmp_path) == NAMES


def test_a_record_without_an_item_is_dropped(tmp_path: Path) -> None:
    make(tmp_path, NAMES)
    assert [r.id for r in make(tmp_path, ["4", "2"]).records] == ["4", "2"]


def test_a_bad_line_on_disk_is_named_before_any_record_is_made(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"records.jsonl:1: "):
        make(tmp_path, NAMES)


def test_a_bug_in_a_step_keeps_its_traceback_and_the_others_stop(tmp_path: Path) -> None:
    running: set[str] = set()

    async def step(name: str) -> Response:
        if name == "3":
            await asyncio.sleep(0.005)
            return {}["a bug"]
        running.add(name)
        try:
            await asyncio.sleep(60)
        finally:
            running.discard(name)
        return record(name)

    with pytest.raises(KeyError, match="a bug") as caught:
        make(tmp_path, NAMES, step, max_failures=100)
    assert caught.traceback[-1].name == "step"
    assert not running


def test_a_record_under_another_id_than_its_items_is_a_bug(tmp_path: Path) -> None:
    async def step(name: str) -> Response:
        return record("other")

    with pytest.raises(AssertionError, match="step made record 'other' for item '0'"):
        make(tmp_path, ["0"], step)


def test_passes_run_one_after_another_so_that_each_may_hold_a_model(tmp_path: Path) -> None:
    told: list[str] = []

    async def step(name: str) -> Response:
        await asyncio.sleep(0.001)
        told.append(name)
        return record(name)

    async def passes() -> AsyncIterator[Pass[str, Response]]:
        for model in "ab":
            told.append(f"load {model}")
            yield Pass({f"{model}{n}": f"{model}{n}" for n in range(2)}, step)
            told.append(f"free {model}")

    made = asyncio.run(run_rows(tmp_path, passes(), Response, concurrency=9, max_failures=0, progress=Silent()))
    assert told == ["load a", "a0", "a1", "free a", "load b", "b0", "b1", "free b"]
    assert [r.id for r in made.records] == ["a0", "a1", "b0", "b1"]


@pytest.mark.parametrize(
    ("file", "failures"), [("records.jsonl", "failures.jsonl"), ("gate.jsonl", "failed-gate.jsonl")]
)
def test_the_error_names_the_file_that_holds_the_failures(tmp_path: Path, file: str, failures: str) -> None:
    async def passes() -> AsyncIterator[Pass[str, Response]]:
        yield Pass({"0": "0"}, fails_on("0"))

    limits = {"concurrency": 1, "max_failures": 0}
    with pytest.raises(TooManyFailures, match=f"See .*/{failures};"):
        asyncio.run(run_rows(tmp_path, passes(), Response, progress=Silent(), file=file, **limits))
    assert (tmp_path / failures).exists()


def test_a_failing_pass_frees_its_model(tmp_path: Path) -> None:
    freed = []

    async def passes() -> AsyncIterator[Pass[str, Response]]:
        try:
            yield Pass({"0": "0"}, fails_on("0"))
        finally:
            freed.append(True)

    with pytest.raises(TooManyFailures):
        asyncio.run(run_rows(tmp_path, passes(), Response, concurrency=1, max_failures=0, progress=Silent()))
    assert freed


def test_progress_gets_the_finished_records_and_the_cost_of_each_new_one(tmp_path: Path) -> None:
    make(tmp_path, ["0"])
    kept = Kept()
    make(tmp_path, ["0", "1", "2"], fails_on("2"), concurrency=1, max_failures=1, progress=kept)
    assert kept.told == [("start", 1, 3), (1, False), (0, True), "finish"]


def test_an_unreachable_server_stops_the_stage_and_is_no_failure_of_a_record(tmp_path: Path) -> None:
    async def step(name: str) -> Response:
        if name == "2":
            raise ModelError("cannot reach it")
        return record(name)

    with pytest.raises(ModelError, match="cannot reach it"):
        make(tmp_path, NAMES, step, concurrency=1, max_failures=100)
    assert on_disk(tmp_path) == ["0", "1"]
    assert list(read_rows(tmp_path / "failures.jsonl", Failure)) == []


def test_ctrl_c_stops_at_once_and_keeps_what_was_made(tmp_path: Path) -> None:
    async def step(name: str) -> Response:
        if name == "2":
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        return record(name)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, NAMES, step, concurrency=1)
    assert on_disk(tmp_path) == ["0", "1"]
