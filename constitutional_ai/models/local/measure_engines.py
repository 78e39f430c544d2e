"""Measures every engine that can run a model on this machine, on short requests of this project's kinds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.table import Table

from constitutional_ai.data.lines import read_items, read_json
from constitutional_ai.data.prompts import BUILT_IN
from constitutional_ai.data.worked_examples import FEW_SHOTS
from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.local.choose import load_weights, runnable_engines, runs_natively
from constitutional_ai.models.local.engine_rates import (
    REFERENCE,
    Measurement,
    describe_machine,
    keep,
    mean_rates,
)
from constitutional_ai.models.model import Context, Model, Sampling
from constitutional_ai.records import Message

ROUNDS, SECONDS = 3, 100
"""Each engine runs each workload so many times, unless another round would end later than that."""
CHOICES = (" (A)", " (B)")
CRITERIA = ("more helpful", "more honest", "less harmful", "clearer")


class Workload(NamedTuple):
    """Requests that are sent at once."""

    name: str
    unit: str
    """What is counted: requests, tokens or scores."""
    contexts: list[Context]
    max_tokens: int
    """New tokens of each; 0 where ``CHOICES`` are scored instead."""


def workloads(mark: str) -> list[Workload]:
    """Return the requests. ``mark`` begins each text, so that no engine knows it from an earlier run."""
    questions = [item["conversation"][0]["content"] for _, item in read_items(BUILT_IN / "helpful.jsonl")]
    pair = next(item for _, item in read_items(BUILT_IN / "helpfulness_pairs.jsonl"))
    shots = mark + "".join(read_json(FEW_SHOTS / "CritiqueRevisionFewShotPrompts.json")[:4])
    chats: list[Context] = [(Message("user", f"{mark} {question}"),) for question in questions[:16]]
    orders = [(pair["chosen"], pair["rejected"]), (pair["rejected"], pair["chosen"])]
    judged: list[Context] = [
        f"{mark} {questions[0]}\n(A) {a}\n(B) {b}\nThe answer that is {criterion} is:"
        for criterion in CRITERIA
        for a, b in orders
    ]
    critiques: list[Context] = [f"{shots} {q}\n\nAssistant: No.\n\nCritique:" for q in questions[:4]]
    return [
        Workload("critiques", "requests", critiques, 24),
        Workload("16 chats", "tokens", chats, 24),
        Workload("one chat", "tokens", chats[:1], 32),
        Workload("feedback", "scores", judged, 0),
    ]


def rate_of(model: Model, workload: Workload) -> float:
    """Return how much of a workload ``model`` finishes in a second. Raises RecordError where a context is too long."""
    started = time.perf_counter()
    return run_workload(model, workload) / (time.perf_counter() - started)


def run_workload(model: Model, workload: Workload) -> int:
    """Run a workload once; return the number of what it counts."""

    async def run() -> int:
        if not workload.max_tokens:
            scores = await asyncio.gather(*[model.score(context, CHOICES) for context in workload.contexts])
            return sum(map(len, scores))
        samplings = [Sampling(max_tokens=workload.max_tokens, seed=n) for n in range(len(workload.contexts))]
        done = await asyncio.gather(*map(model.generate, workload.contexts, samplings))
        return len(done) if workload.unit == "requests" else sum(each.completion_tokens for each in done)

    return asyncio.run(run())


def measure_engines(name: str, weights: str | Path, say: Callable[[str], None]) -> Measurement:
    """Measure every installed engine that runs ``weights``, and keep the result. Raises ModelError."""
    engines = runnable_engines(weights)
    say(f"Measuring {', '.join(engines)} with {name}: about two minutes, while nothing else should run.")
    models: dict[str, Model] = {}
    for engine in engines:
        try:
            models[engine] = load_weights(name, weights, engine=engine, say=lambda _: None)
        except ModelError as error:
            if engine == REFERENCE:
                raise
            say(f"{engine} is not measured: {error}")
    try:
        rates = _rates(models)
    except RecordError as error:
        raise ModelError(f"'{name}' cannot be measured: {error}. Name another model.") from error
    today = datetime.now(UTC).date()
    measurement = Measurement(describe_machine(), runs_natively(weights), name, today, rates)
    try:
        keep(measurement)
    except OSError as error:
        say(
            f"The result is not kept: {error.strerror or error}. Set CAI_CACHE to a folder that can be written."
        )
    return measurement


def _rates(models: dict[str, Model]) -> dict[str, dict[str, float]]:
    """Return the median rate of each engine at each workload. The engines take turns."""
    runs: dict[str, dict[str, list[float]]] = {engine: {} for engine in models}
    for model in models.values():  # the first run compiles and allocates
        run_workload(model, workloads("Warm up.")[2])
    started = time.perf_counter()
    for number in range(1, ROUNDS + 1):
        for workload in workloads(f"Round {number}."):
            for engine, model in models.items():
                if workload.max_tokens or engine != "openvino":  # transformers scores for it
                    runs[engine].setdefault(workload.name, []).append(rate_of(model, workload))
        if (time.perf_counter() - started) * (number + 1) / number > SECONDS:
            break
    return {engine: {name: median(rates) for name, rates in each.items()} for engine, each in runs.items()}


def rates_table(rates: dict[str, dict[str, float]], picked: str) -> Table:
    """Return the rates as a table; ``picked`` is the engine that is used from now on."""
    means, shown = mean_rates(rates), workloads("")
    table = Table("engine", box=None, header_style="dim")
    for title in [*[f"{each.name}\n{each.unit}/s" for each in shown], f"times\n{REFERENCE}"]:
        table.add_column(title, justify="right")
    table.add_column("")
    for engine, mean in means.items():
        own = [f"{rates[engine][w.name]:,.3g}" if w.name in rates[engine] else "–" for w in shown]
        table.add_row(engine, *own, f"{mean / means[REFERENCE]:.2f}", "picked" if engine == picked else "")
    return table
