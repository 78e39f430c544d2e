"""Speed of our engine beside plain transformers and (where they are installed) OpenVINO and vLLM. ``make bench``.

All engines get the same prompts, in turns, so that a change in the machine's speed meets all of them. "Plain" is what
one writes first, in a process of its own: ``transformers.generate`` over left-padded batches of 16, and a whole forward
pass for every score. Where plain takes minutes it gets a part of the prompts, and rates are compared. Our engine starts
each run without any kept prefix, unless a row says "warm".

OpenVINO gives no scores of its own, so it has no rows of feedback.

vLLM needs another environment: ``CAI_VLLM_PYTHON`` names a Python that has it. ``QUICK=1`` runs everything once.
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
from results import Row, processor, ratio, report
from sides import (
    DRAWN,
    NEW,
    TIMES,
    Measured,
    cold,
    generated,
    has_openvino,
    in_turns,
    on_openvino,
    ours,
    scored,
    token_ids,
    warm,
)
from workloads import BASE, chats, critiques, feedback

from constitutional_ai.engine.open import common_prefix
from constitutional_ai.models.model import Context

PLAIN_BATCH = 16
TILES = bool(processor()["amx_tiles"])
CRITIQUES_BAR, FEEDBACK_BAR = (25, 10) if TILES else (None, None)
"""Set and met with AMX tiles; without them the first runs gave 15.8 and 5.6, and no bar is set yet."""


def compared(
    name: str,
    unit: str,
    bar: float | None,
    own: list[Measured],
    other: list[Measured],
    who: str = "plain transformers",
) -> list[Row]:
    """Return the other engine's rate, and the ratio of ours to it."""
    rates = [a.rate / b.rate for a, b in zip(own, other, strict=True)]
    return [Row(f"{name}: {who}", median_rate(other), f"{unit}/s"), ratio(f"{name}: times {who}", rates, bar)]


def median_rate(runs: list[Measured]) -> float:
    return statistics.median(run.rate for run in runs)


def median_seconds(runs: list[Measured]) -> float:
    return statistics.median(run.seconds for run in runs)


def our_rate(name: str, unit: str, runs: list[Measured]) -> Row:
    rates = [run.rate for run in runs]
    return Row(name, median_rate(runs), f"{unit}/s ({min(rates):.3g} to {max(rates):.3g})")


def generated_by_plain(prompts: list[list[int]], count: Callable[[list[Any]], int]) -> Measured:
    seconds, completions = sides.plain(prompts, size=PLAIN_BATCH, how=DRAWN)
    return Measured(seconds, count(completions))


def scored_by_plain(prompts: list[list[int]]) -> Measured:
    seconds, scores = sides.plain(prompts, ends=sides.choices())
    return Measured(seconds, count_all(scores))


def count_all(lists: list[Any]) -> int:
    """Return the number of tokens, or of scores, in all lists."""
    return sum(map(len, lists))


def critique_rows(limits: Limits, model: Model) -> list[Row]:
    """Measure requests that share a long prefix."""
    contexts = critiques()
    prompts, name = token_ids(contexts), f"{len(contexts)} critiques sharing their few-shots"

    def run() -> int:
        return len(generated(contexts))

    own, again, plain = in_turns(
        partial(cold, run), partial(warm, run), partial(generated_by_plain, prompts[:PLAIN_BATCH], len)
    )
    work = Work.of(prompts, common_prefix(min(prompts), max(prompts)), NEW, len(prompts) * NEW)
    rows = [our_rate(name, "requests", own), our_rate(f"{name}, warm", "requests", again)]
    rows += compared(name, "requests", CRITIQUES_BAR, own, plain)
    rows += openvino_rows(name, "requests", lambda model: len(generated(contexts, model)))
    return rows + vllm_rows(name, prompts, run) + limits.shares(name, work, model, median_seconds(own))


def openvino_rows(name: str, unit: str, run: Callable[[Any], int]) -> list[Row]:
    """Compare the same requests with OpenVINO, if it is installed, neither side with any kept prefix."""
    if not has_openvino():
        return []
    own, theirs = in_turns(partial(cold, lambda: run(ours())), partial(on_openvino, run))
    return compared(name, unit, None, own, theirs, "OpenVINO")


def vllm_rows(name: str, prompts: list[list[int]], run: Callable[[], int]) -> list[Row]:
    """Compare the same requests with vLLM, if there is one."""
    if not os.environ.get("CAI_VLLM_PYTHON"):
        print("vLLM is not measured. Set CAI_VLLM_PYTHON to a Python that has it.")
        return []
    own, again, theirs, theirs_again, version = [], [], [], [], ""
    for _ in range(TIMES):
        own.append(cold(run))
        again.append(warm(run))
        times = sides.vllm(prompts)
        if times is None:  # the other rows are still worth having
            return [Row(f"{name}: vLLM did not run", 0, "", "at least 1.5 times vLLM", False)]
        theirs.append(Measured(times["cold"], len(prompts)))
        theirs_again.append(Measured(times["warm"], len(prompts)))
        version = times["version"]
        print("ours", own[-1].rate, again[-1].rate, "vLLM", theirs[-1].rate, theirs_again[-1].rate, flush=True)
    who = f"vLLM {version}"
    return [
        *compared(name, "requests", 1.5, own, theirs, who),
        *compared(f"{name}, warm", "requests", None, again, theirs_again, who),
    ]


def chat_rows(limits: Limits, model: Model) -> list[Row]:
    """Measure short requests that share nothing."""
    contexts = chats()
    prompts, name = token_ids(contexts), f"{len(contexts)} short chats"

    def run() -> int:
        return new_tokens(contexts, ours())

    own, plain = in_turns(partial(cold, run), partial(generated_by_plain, prompts, count_all))
    # The work is computed as if every completion had the mean length.
    new = int(statistics.median(measured.done for measured in own)) // len(prompts)
    work = Work.of(prompts, 0, new, len(prompts) * (1 + new))._replace(steps=NEW)
    rows = [our_rate(name, "tokens", own), *compared(name, "tokens", 1.4, own, plain)]
    rows += openvino_rows(name, "tokens", partial(new_tokens, contexts))
    return rows + limits.shares(name, work, model, median_seconds(own))


def new_tokens(contexts: list[Context], model: Any) -> int:
    """Generate a completion for each context; return the number of their tokens."""
    return sum(completion.completion_tokens for completion in generated(contexts, model))


def one_chat_rows(limits: Limits, model: Model) -> list[Row]:
    """Measure a single request: a step then reads all weights for one token."""
    run = partial(new_tokens, chats(1))
    (own,) = in_turns(partial(cold, lambda: run(ours())))
    return [our_rate("one chat", "tokens", own), *openvino_rows("one chat", "tokens", run)]


def feedback_rows(limits: Limits, model: Model) -> list[Row]:
    """Measure scores, with worked examples before the question as in the paper's format (FB-7) and without."""
    rows = []
    for shots, name, part in ((False, "feedback on a pair", 32), (True, "feedback with worked examples", 8)):
        contexts = feedback(shots)
        prompts = token_ids(contexts)
        own, plain = in_turns(
            partial(cold, lambda contexts=contexts: count_all(scored(contexts))),
            partial(scored_by_plain, prompts[:: 32 // part]),
        )
        work = Work.of(prompts, common_prefix(min(prompts), max(prompts)), 4, 5 * len(prompts))._replace(
            steps=0
        )
        rows += [our_rate(name, "scores", own), *compared(name, "scores", FEEDBACK_BAR, own, plain)]
        rows += limits.shares(name, work, model, median_seconds(own))
    return rows


def main() -> None:
    limits, model = Limits.measured(), Model.of(str(BASE))
    rows = [
        row
        for measure in (critique_rows, chat_rows, one_chat_rows, feedback_rows)
        for row in measure(limits, model)
    ]
    report("engines", rows + agreement_rows())


if __name__ == "__main__":
    main()
