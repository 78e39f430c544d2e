from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.errors import OnlyThought, RecordError, TooManyFailures
from constitutional_ai.records import Completion, Message, Prompt, Response, Usage, usage
from constitutional_ai.runs import meter
from constitutional_ai.runs.budget import Budget, BudgetSpent, TokensUnknown
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.rows import read_rows
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Pass, Silent, StageRows, run_rows

PROMPT = Prompt.of((Message("user", "Hi"),), "helpful", "test")


def make(folder: Path, costs: list[int], budget: Budget, concurrency: int = 8) -> list[int]:
    """Tokens of the records that a stage then has. A cost of 0 is a record that fails."""

    async def step(number: int) -> Response:
        await asyncio.sleep(0)
        if not costs[number]:
            raise RecordError("bad")
        return Response(str(number), PROMPT, Completion("x", "m", "stop", costs[number], 0))

    async def passes() -> AsyncIterator[Pass[int, Response]]:
        yield Pass({str(n): n for n in range(len(costs))}, step)

    how = {"concurrency": concurrency, "max_failures": len(costs), "progress": Silent()}
    try:
        asyncio.run(run_rows(folder, passes(), Response, budget=budget, **how))  # type: ignore[arg-type]
    finally:
        rows = list(read_rows(folder / "records.jsonl", Response))
    return [row.completion.prompt_tokens for row in rows]


@pytest.mark.parametrize("concurrency", [1, 3, 64])
def test_a_stage_stops_before_the_record_that_would_pass_the_budget(tmp_path: Path, concurrency: int) -> None:
    with pytest.raises(BudgetSpent, match=r"budget.tokens=55 is too low to continue stage: 50 tokens"):
        make(tmp_path / "stage", [10] * 20, Budget(55), concurrency)
    assert len(list(read_rows(tmp_path / "stage" / "records.jsonl", Response))) == 5


def test_a_stopped_stage_goes_on_under_a_higher_budget(tmp_path: Path) -> None:
    for budget in (55, 120, 200):
        if budget < 200:
            with pytest.raises(BudgetSpent):
                make(tmp_path, [10] * 20, Budget(budget))
        else:
            assert make(tmp_path, [10] * 20, Budget(budget)) == [10] * 20
        made = [row.id for row in read_rows(tmp_path / "records.jsonl", Response)]
        assert len(made) == len(set(made)) == budget // 10


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 60), st.integers(1, 9))
def test_no_budget_is_passed_once_it_is_known_what_the_dearest_record_costs(
    tmp_path_factory: pytest.TempPathFactory, costs: list[int], budget: int, concurrency: int
) -> None:
    folder = tmp_path_factory.mktemp("stage")
    try:
        made = make(folder, [9, *costs], Budget(budget), concurrency)
        assert len(made) == 1 + sum(map(bool, costs))
        assert sum(made) <= max(budget, 9)
    except BudgetSpent:
        spent = sum(r.completion.prompt_tokens for r in read_rows(folder / "records.jsonl", Response))
        assert spent <= max(budget, 9)
        assert spent + 9 > budget  # nor is more left than the dearest would have cost


COSTS = {  # tokens that each record writes, to prompts of 20
    "a cheap one first": [10, *[100 + 37 * n % 400 for n in range(600)]],
    "long tails": [900 if n % 17 == 0 else 30 + n % 40 for n in range(600)],
    "dearer ones behind": [*[60 + n % 30 for n in range(300)], *[350 + n % 150 for n in range(300)]],
}


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("budget", [5_000, 20_000, 40_000])
def test_records_in_flight_are_reserved_at_what_they_may_write(tmp_path: Path, name: str, budget: int) -> None:
    costs = COSTS[name]

    async def step(number: int) -> Response:
        await asyncio.sleep(costs[number] * 1e-5)
        meter.count(20, costs[number], 1024)
        return Response(str(number), PROMPT, Completion("x", "m", "stop", 20, costs[number]))

    async def passes() -> AsyncIterator[Pass[int, Response]]:
        yield Pass({str(n): n for n in range(len(costs))}, step)

    with pytest.raises(BudgetSpent):
        asyncio.run(
            run_rows(
                tmp_path,
                passes(),
                Response,
                budget=Budget(budget),
                concurrency=256,
                max_failures=0,
                progress=Silent(),
            )
        )
    spent = sum(sum(usage(row)) for row in read_rows(tmp_path / "records.jsonl", Response))
    assert budget - 2 * max(costs) < spent <= budget + max(costs) - costs[0]


def test_what_a_failed_record_cost_is_spent(tmp_path: Path) -> None:
    async def step(number: int) -> Response:
        meter.count(8, 2, 100)
        if number % 2:
            raise OnlyThought("thought, and gave no answer")
        return Response(str(number), PROMPT, Completion("x", "m", "stop", 8, 2))

    async def passes() -> AsyncIterator[Pass[int, Response]]:
        yield Pass({str(n): n for n in range(20)}, step)

    how = {"concurrency": 1, "max_failures": 20, "progress": Silent()}
    with pytest.raises(BudgetSpent, match="50 tokens"):
        asyncio.run(run_rows(tmp_path / "a", passes(), Response, budget=Budget(55), **how))  # type: ignore[arg-type]
    assert len(list(read_rows(tmp_path / "a" / "records.jsonl", Response))) == 3
    whole = asyncio.run(run_rows(tmp_path / "b", passes(), Response, **how))  # type: ignore[arg-type]
    assert (whole.tokens, whole.failures) == (Usage(160, 40), 10)


async def often_fails(number: int) -> Response:
    """A step of 10 tokens, which fails for odd numbers."""
    meter.count(8, 2, 100)
    if number % 2:
        raise OnlyThought("thought, and gave no answer")
    return Response(str(number), PROMPT, Completion("x", "m", "stop", 8, 2))


@pytest.mark.parametrize("file", ["records.jsonl", "gate.jsonl"])
def test_what_failed_in_earlier_sessions_is_spent(tmp_path: Path, file: str) -> None:
    async def passes() -> AsyncIterator[Pass[int, Response]]:
        yield Pass({str(n): n for n in range(20)}, often_fails)

    def session(tokens: int | None, max_failures: int) -> StageRows[Response]:
        how = {"concurrency": 1, "max_failures": max_failures, "progress": Silent(), "file": file}
        return asyncio.run(run_rows(tmp_path, passes(), Response, budget=Budget(tokens), **how))  # type: ignore[arg-type]

    with pytest.raises(TooManyFailures):
        session(None, 2)  # 0 to 5, of which three fail
    with pytest.raises(BudgetSpent, match=": 90 tokens"):
        session(95, 20)  # 1, 3 and 5 fail again
    with pytest.raises(BudgetSpent, match=": 90 tokens"):
        session(99, 20)
    whole = session(None, 20)
    assert (whole.tokens, whole.failures) == (
        Usage(8 * 26, 2 * 26),
        10,
    )  # 10 records, 16 failures in three sessions


def test_a_retry_in_which_all_fails_again_is_spent_in_the_whole_run(tmp_path: Path) -> None:
    async def passes() -> AsyncIterator[Pass[int, Response]]:
        yield Pass({str(n): n for n in range(4)}, often_fails)

    with open_run(tmp_path / "run", {}, Silent()) as opened:
        run = replace(opened, retries_failures=True, concurrency=1)
        how: dict[str, Any] = {"config": {}, "inputs": {}}
        run.make_rows("01-responses", Response, passes, **how)
        for session in (1, 2):
            with pytest.raises(TooManyFailures):
                replace(run, max_failures=1).make_rows("01-responses", Response, passes, **how)
            manifest = run.manifest("01-responses")
            assert manifest is not None
            assert (manifest.tokens, manifest.failures) == (40 + 20 * session, 2)
        with pytest.raises(BudgetSpent, match=": 90 tokens"):  # 80, and a first record to learn what one costs
            budget = run.budget(85, None, excluding="02-revisions")
            run.make_rows("02-revisions", Response, passes, budget=budget, **how)
        run.make_rows("01-responses", Response, passes, **how)
        manifest = run.manifest("01-responses")
        assert manifest is not None
        assert manifest.tokens == 100


def silent_server(run: Run, stage: str, *, tokens: int | None, numbers: int = 5) -> None:
    """Makes a stage with a server whose replies have no usage."""

    async def step(number: int) -> Response:
        return Response(str(number), PROMPT, Completion("x", "server:m@http://here", "stop", 0, 0))

    async def passes() -> AsyncIterator[Pass[int, Response]]:
        yield Pass({str(n): n for n in range(numbers)}, step)

    budget = run.budget(tokens, None, excluding=stage)
    run.make_rows(stage, Response, passes, config={}, inputs={}, budget=budget)


@pytest.mark.parametrize("numbers", [1, 5])
def test_a_budget_of_tokens_that_nobody_counts_is_refused(tmp_path: Path, numbers: int) -> None:
    said = r"budget\.tokens=1000 cannot be kept: server:m@http://here does not say .* budget\.hours"
    with open_run(tmp_path / "run", {}, Silent()) as run:
        for _ in range(2):  # the record that was made does not make the next session believe otherwise
            with pytest.raises(TokensUnknown, match=said):
                silent_server(run, "01-responses", tokens=1000, numbers=numbers + 1)
        assert len(run.rows("01-responses", Response)) == 1
        assert run.manifest("01-responses") is None
        silent_server(run, "01-responses", tokens=None, numbers=numbers + 1)
        with pytest.raises(TokensUnknown, match="the model of 01-responses did not say"):
            silent_server(run, "02-revisions", tokens=1000)
        silent_server(run, "01-responses", tokens=1000, numbers=numbers + 1)  # complete: nothing is owed


def test_tokens_that_nobody_counts_are_null_and_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    with open_run(tmp_path / "run", {}, Silent()) as opened:
        run = replace(opened, say=told.append)
        silent_server(run, "01-responses", tokens=None)
        manifest = run.manifest("01-responses")
    assert manifest is not None
    assert (manifest.prompt_tokens, manifest.completion_tokens, manifest.tokens) == (None, None, 0)
    (said,) = told
    assert said.startswith("server:m@http://here does not say how many tokens")


def test_the_cost_of_other_stages_counts(tmp_path: Path) -> None:
    with pytest.raises(BudgetSpent, match="30 tokens"):
        make(tmp_path, [10] * 20, Budget(35, spent=10))
    with pytest.raises(BudgetSpent, match=r"budget\.hours=1 .* 2\.00 hours"):
        make(tmp_path, [10] * 20, Budget(hours=1, seconds=7200))


def test_spent_hours_stop_a_stage_with_no_record_in_progress(tmp_path: Path) -> None:
    with pytest.raises(BudgetSpent, match=r"hours are spent.*higher budget\.hours"):
        make(tmp_path, [10] * 100_000, Budget(hours=0.2 / 3600))
    assert not (tmp_path / "failures.jsonl").exists() or not (tmp_path / "failures.jsonl").read_bytes()


def test_a_finished_stage_needs_no_budget(tmp_path: Path) -> None:
    make(tmp_path, [10] * 3, Budget())
    assert make(tmp_path, [10] * 3, Budget(1, hours=1e-9)) == [10] * 3


def test_the_budget_of_a_run_covers_all_its_stages(tmp_path: Path) -> None:
    async def passes() -> AsyncIterator[Pass[str, Response]]:
        async def step(name: str) -> Response:
            return Response(name, PROMPT, Completion("x", "m", "stop", 7, 3))

        yield Pass({"0": "0", "1": "1"}, step)

    def stage(run: Run, name: str, budget: int) -> None:
        run.make_rows(
            name,
            Response,
            passes,
            config={},
            inputs={},
            budget=run.budget(budget, None, excluding=name),
        )

    with open_run(tmp_path / "run", {}, Silent()) as run:
        stage(run, "01-responses", 20)
        with pytest.raises(BudgetSpent, match="02-revisions: 30 tokens"):
            stage(run, "02-revisions", 35)
        stage(run, "02-revisions", 40)


def test_a_killed_stage_counts_what_it_had_spent(tmp_path: Path) -> None:
    code = f"""
import asyncio
from pathlib import Path
from constitutional_ai.records import Completion, Message, Prompt, Response
from constitutional_ai.runs.budget import Budget
from constitutional_ai.runs.runner import Pass, Silent, run_rows
PROMPT = Prompt.of((Message("user", "Hi"),), "helpful", "test")
async def step(n):
    await asyncio.sleep(0 if n < 4 else 60)
    return Response(str(n), PROMPT, Completion("x", "m", "stop", 10, 0))
async def passes():
    yield Pass({{str(n): n for n in range(20)}}, step)
asyncio.run(run_rows(Path({str(tmp_path)!r}), passes(), Response, concurrency=2, max_failures=0,
                     progress=Silent(), budget=Budget(1000)))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 60
    records = tmp_path / "records.jsonl"
    while not records.exists() or records.read_bytes().count(b"\n") < 4:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(BudgetSpent, match="70 tokens"):
        make(tmp_path, [10] * 20, Budget(75))
    assert make(tmp_path, [10] * 20, Budget(200)) == [10] * 20
