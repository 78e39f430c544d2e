from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.errors import RecordError
from constitutional_ai.records import Completion, Message, Prompt, Response
from constitutional_ai.runs.budget import Budget, BudgetSpent
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.rows import read_rows
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Pass, Silent, run_rows

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
