"""Speed of the in-process backend, beside plain transformers and (where it is installed) vLLM. ``make bench``.

All that is compared runs on the same prompts, in turns, so that what else the machine does meets all of it. "Plain" is
what one writes first, in a process of its own: ``transformers.generate`` over left-padded batches of 16, and a whole
forward pass for every score. Where plain takes minutes it is given a part of the prompts, and rates are compared. Every
run of ours is cold: it knows no beginning yet, unless a row says "warm".

vLLM cannot share an environment with us: ``CAI_VLLM_PYTHON`` names a Python that has it. ``QUICK=1`` runs everything
once.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import sides
from agreement import agreement_rows
from limits import Limits, Model, Work
from results import Row, report
from sides import DRAWN, NEW, Measured, cold, generated, scored, token_ids, warm
from workloads import BASE, chats, critiques, feedback

from constitutional_ai import machine
from constitutional_ai.engine.open import common_prefix
from constitutional_ai.models.model import Context

QUICK = bool(os.environ.get("QUICK"))
TIMES = 1 if QUICK else 3
PLAIN_BATCH = 16


def in_turns(*run: Callable[[], Measured]) -> list[list[Measured]]:
    runs: list[list[Measured]] = [[] for _ in run]
    for _ in range(TIMES):
        for measured, side in zip(runs, run, strict=True):
            measured.append(side())
            print(measured[-1], f"{measured[-1].rate:.3g} a second", flush=True)
    return runs


def compared(
    name: str,
    unit: str,
    bar: float,
    own: list[Measured],
    other: list[Measured],
    who: str = "plain transformers",
) -> list[Row]:
    ratios = [a.rate / b.rate for a, b in zip(own, other, strict=True)]
    ratio, asked = statistics.median(ratios), f"at least {bar:g}" if bar else ""
    return [
        Row(f"{name}: {who}", median_rate(other), f"{unit}/s", ""),
        Row(f"{name}: times {who}", ratio, f"({min(ratios):.1f} to {max(ratios):.1f})", asked, ratio >= bar),
    ]


def median_rate(runs: list[Measured]) -> float:
    return statistics.median(run.rate for run in runs)


def of_ours(name: str, unit: str, runs: list[Measured]) -> Row:
    rates = [run.rate for run in runs]
    return Row(name, median_rate(runs), f"{unit}/s ({min(rates):.3g} to {max(rates):.3g})", "")


def plainly_generated(rows: list[list[int]], count: Callable[[list[Any]], int]) -> Measured:
    seconds, made = sides.plain(rows, size=PLAIN_BATCH, how=DRAWN)
    return Measured(seconds, count(made))


def plainly_scored(rows: list[list[int]]) -> Measured:
    seconds, made = sides.plain(rows, ends=sides.choices())
    return Measured(seconds, sum(map(len, made)))


def critique_rows(limits: Limits, model: Model) -> list[Row]:
    contexts = critiques()
    rows, name = token_ids(contexts), f"{len(contexts)} critiques sharing their few-shots"

    def ask() -> int:
        return len(generated(contexts))

    own, again, beside = in_turns(
        partial(cold, ask), partial(warm, ask), partial(plainly_generated, rows[:PLAIN_BATCH], len)
    )
    work = Work.of(rows, common_prefix(min(rows), max(rows)), NEW, len(rows) * NEW)
    seconds = statistics.median(run.seconds for run in own)
    made = [of_ours(name, "requests", own), of_ours(f"{name}, warm", "requests", again)]
    made += compared(name, "requests", 25, own, beside)
    return made + beside_vllm(name, rows, ask) + limits.shares(name, work, model, seconds)


def beside_vllm(name: str, rows: list[list[int]], ask: Callable[[], int]) -> list[Row]:
    if not os.environ.get("CAI_VLLM_PYTHON"):
        print("no vLLM: CAI_VLLM_PYTHON names no Python that has it")
        return []
    own, again, theirs, theirs_again, version = [], [], [], [], ""
    for _ in range(TIMES):
        own.append(cold(ask))
        again.append(warm(ask))
        ran = sides.vllm(rows)
        if ran is None:  # its reason stands above; the rows that need no vLLM are still worth having
            return [Row(f"{name}: vLLM did not run", 0, "", "at least 1.5 times vLLM", False)]
        theirs.append(Measured(ran["cold"], len(rows)))
        theirs_again.append(Measured(ran["warm"], len(rows)))
        version = ran["version"]
        print("ours", own[-1].rate, again[-1].rate, "vLLM", theirs[-1].rate, theirs_again[-1].rate, flush=True)
    who = f"vLLM {version}"
    return [
        *compared(name, "requests", 1.5, own, theirs, who),
        *compared(f"{name}, warm", "requests", 0, again, theirs_again, who),
    ]


def chat_rows(limits: Limits, model: Model) -> list[Row]:
    contexts = chats()
    rows, name = token_ids(contexts), f"{len(contexts)} short chats"

    def ask() -> int:
        return sum(one.completion_tokens for one in generated(contexts))

    own, beside = in_turns(
        partial(cold, ask),
        partial(plainly_generated, rows, lambda said: sum(map(len, said))),
    )
    # As if each row said as much as the mean one.
    new = int(statistics.median(run.done for run in own)) // len(rows)
    work = Work.of(rows, 0, new, len(rows) * (1 + new))._replace(steps=NEW)
    seconds = statistics.median(run.seconds for run in own)
    made = [of_ours(name, "tokens", own), *compared(name, "tokens", 1.4, own, beside)]
    return made + limits.shares(name, work, model, seconds)


def scores_of(contexts: list[Context]) -> int:
    return sum(map(len, scored(contexts, machine.best_dtype())))


def feedback_rows(limits: Limits, model: Model) -> list[Row]:
    """Worked examples stand before the question in the paper's format (FB-7), and not in a chat's."""
    made = []
    for shots, name, part in ((False, "feedback on a pair", 32), (True, "feedback with worked examples", 8)):
        contexts = feedback(shots)
        rows = token_ids(contexts)
        own, beside = in_turns(
            partial(cold, partial(scores_of, contexts)), partial(plainly_scored, rows[:: 32 // part])
        )
        work = Work.of(rows, common_prefix(min(rows), max(rows)), 4, 5 * len(rows))._replace(steps=0)
        seconds = statistics.median(run.seconds for run in own)
        made += [of_ours(name, "scores", own), *compared(name, "scores", 10, own, beside)]
        made += limits.shares(name, work, model, seconds)
    return made


def main() -> None:
    limits, model = Limits.measured(), Model.of(str(BASE))
    made = [row for rows in (critique_rows, chat_rows, feedback_rows) for row in rows(limits, model)]
    report("engines", made + agreement_rows())


if __name__ == "__main__":
    main()
