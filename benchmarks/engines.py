"""Speed of the in-process backend, beside plain transformers and (where it is installed) vLLM. ``make bench``.

All that is compared runs on the same prompts, in turns and in one process, so that what else the machine does meets all
of it. "Plain" is what one writes first: ``transformers.generate`` over left-padded batches of 16, and a whole forward
pass for every score. Where plain takes minutes it is given a part of the prompts, and rates are compared. Every run of
ours is cold: it knows no beginning yet, unless a row says "warm".

vLLM cannot share an environment with us: ``CAI_VLLM_PYTHON`` names a Python that has it (``vllm_workload.py``).
``QUICK=1`` runs everything once.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from results import Row, report
from transformers import AutoModelForCausalLM, AutoTokenizer
from workloads import BASE, chats, critiques, feedback

from cai.models.decoding import Decoding, Draws
from cai.models.hugging_face import HuggingFaceModel, best_dtype, device
from cai.models.model import Context, Sampling
from cai.rl_cai import requests as feedback_requests

QUICK = bool(os.environ.get("QUICK"))
TIMES = 1 if QUICK else 3
NEW, PLAIN_BATCH = 64, 16


class Measured(NamedTuple):
    seconds: float
    done: int
    """Requests, tokens or scores."""

    @property
    def rate(self) -> float:
        return self.done / self.seconds


# -- ours and theirs


@cache
def ours(dtype: torch.dtype) -> Any:
    return HuggingFaceModel("ours", BASE, dtype=dtype)


@cache
def plain(dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=dtype).to(device()).eval()


def token_ids(contexts: list[Context]) -> list[list[int]]:
    return [ours(best_dtype())._tokens(context, room=NEW) for context in contexts]


# -- ours


def forget() -> None:
    model = ours(best_dtype())
    model._engine = model._engine_for(kept=True)


def generated(contexts: list[Context], temperature: float = 1.0, dtype: torch.dtype | None = None) -> list[Any]:
    model = ours(dtype or best_dtype())

    async def together() -> list[Any]:
        how = [Sampling(temperature=temperature, max_tokens=NEW, seed=seed) for seed in range(len(contexts))]
        return await asyncio.gather(*map(model.generate, contexts, how))

    return asyncio.run(together())


def scored(contexts: list[Context], dtype: torch.dtype | None = None) -> list[list[float]]:
    model = ours(dtype or best_dtype())

    async def together() -> list[list[float]]:
        return await asyncio.gather(*[model.score(c, feedback_requests.CHOICES) for c in contexts])

    return asyncio.run(together())


def our_generation(contexts: list[Context], count: Callable[[list[Any]], int]) -> Measured:
    forget()
    return timed(lambda: count(generated(contexts)))


def our_scores(contexts: list[Context]) -> Measured:
    forget()
    return timed(lambda: sum(map(len, scored(contexts))))


def timed(run: Callable[[], int]) -> Measured:
    began = time.perf_counter()
    done = run()
    return Measured(time.perf_counter() - began, done)


# -- plain transformers


@torch.inference_mode()
def plainly_generated(rows: list[list[int]], size: int, dtype: torch.dtype, **how: Any) -> list[list[int]]:
    """What each row says, up to its end."""
    model, tokenizer, said = plain(dtype), AutoTokenizer.from_pretrained(BASE, padding_side="left"), []
    for at in range(0, len(rows), size):
        batch = tokenizer.pad({"input_ids": rows[at : at + size]}, return_tensors="pt").to(device())
        out = model.generate(**batch, max_new_tokens=NEW, pad_token_id=tokenizer.pad_token_id, **how)
        said += out[:, batch["input_ids"].shape[1] :].tolist()
    ends = [
        row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row) for row in said
    ]
    return [row[:end] for row, end in zip(said, ends, strict=True)]


def plain_generation(rows: list[list[int]], count: Callable[[list[Any]], int]) -> Measured:
    drawn = {"do_sample": True, "temperature": 1.0, "top_k": 0}
    return timed(lambda: count(plainly_generated(rows, PLAIN_BATCH, best_dtype(), **drawn)))


@torch.inference_mode()
def plainly_scored(rows: list[list[int]], dtype: torch.dtype) -> list[list[float]]:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    ends = [tokenizer(choice)["input_ids"] for choice in feedback_requests.CHOICES]
    return [[log_probability(plain(dtype), row, end) for end in ends] for row in rows]


def log_probability(model: Any, before: list[int], after: list[int]) -> float:
    logits = model(torch.tensor([before + after], device=device())).logits[0, len(before) - 1 : -1]
    logps = logits.float().log_softmax(-1)
    return float(logps.gather(1, torch.tensor(after, device=device())[:, None]).sum())


def plain_scores(rows: list[list[int]]) -> Measured:
    return timed(lambda: sum(map(len, plainly_scored(rows, best_dtype()))))


# -- rows


def in_turns(*sides: Callable[[], Measured]) -> list[list[Measured]]:
    runs: list[list[Measured]] = [[] for _ in sides]
    for _ in range(TIMES):
        for measured, side in zip(runs, sides, strict=True):
            measured.append(side())
            print(measured[-1], f"{measured[-1].rate:.3g} a second", flush=True)
    return runs


def compared(name: str, unit: str, bar: float, own: list[Measured], theirs: list[Measured]) -> list[Row]:
    rates = [run.rate for run in own]
    ratios = [a.rate / b.rate for a, b in zip(own, theirs, strict=True)]
    ratio, spread = statistics.median(ratios), f"times ({min(ratios):.1f} to {max(ratios):.1f})"
    beside = statistics.median(run.rate for run in theirs)
    asked = f"at least {bar:g}" if bar else ""
    return [
        Row(name, statistics.median(rates), f"{unit}/s ({min(rates):.3g} to {max(rates):.3g})", ""),
        Row(f"{name}: plain transformers", beside, f"{unit}/s", ""),
        Row(f"{name}: faster than plain", ratio, spread, asked, ratio >= bar),
    ]


def critique_rows(limits: Limits) -> list[Row]:
    contexts, warm = critiques(), partial(timed, lambda: len(generated(contexts)))
    rows = token_ids(contexts)
    own, again, beside = in_turns(
        partial(our_generation, contexts, len), warm, partial(plain_generation, rows[:PLAIN_BATCH], len)
    )
    name = f"{len(contexts)} critiques sharing their few-shots"
    made = compared(name, "requests", 25, own, beside)
    made.append(Row(f"{name}, warm", statistics.median(r.rate for r in again), "requests/s", ""))
    shared = min(map(len, rows)) - 64  # some of each row's own tokens are shared too: at the least
    work = Work(sum(len(row) - shared for row in rows) + shared + len(rows) * NEW, len(rows) * (NEW + 1), NEW)
    return made + beside_vllm(name, "requests", rows, len(rows), 1.5, own) + limits.shares(name, work, own)


def chat_rows(limits: Limits) -> list[Row]:
    contexts = chats()
    rows = token_ids(contexts)

    def tokens(said: list[Any]) -> int:
        return sum(one.completion_tokens if hasattr(one, "completion_tokens") else len(one) for one in said)

    own, beside = in_turns(partial(our_generation, contexts, tokens), partial(plain_generation, rows, tokens))
    name, done = f"{len(contexts)} short chats", int(statistics.median(run.done for run in own))
    work = Work(sum(map(len, rows)) + done, len(rows) + done, NEW)
    return compared(name, "tokens", 1.4, own, beside) + limits.shares(name, work, own)


def feedback_rows(limits: Limits) -> list[Row]:
    made = []
    for shots, name, bar, part in (
        ("none", "feedback on a pair", 10, 32),
        ("one", "feedback with few-shots", 10, 8),
        ("each", "feedback with few-shots of each principle's own", 0, 8),
    ):
        contexts = feedback(shots)
        rows = token_ids(contexts)
        own, beside = in_turns(partial(our_scores, contexts), partial(plain_scores, rows[:: 32 // part]))
        made += compared(name, "scores", bar, own, beside)
        if shots == "none":
            made += limits.shares(name, Work(sum(map(len, rows)), 5 * len(rows), 0), own)
    return made


# -- the same text


def agreement_rows() -> list[Row]:
    """In bfloat16 plain transformers does not agree with itself in another batch either; that row shows how much."""
    made = []
    rows_of = {"chats": chats(16), "critiques": critiques(4)}
    for dtype, bar in dict.fromkeys([(best_dtype(), 0.95), (torch.float32, 1.0)]):
        for what, contexts in rows_of.items():
            rows, name = token_ids(contexts), f"{what}, {dtype}"
            alone = plainly_generated(rows, 1, dtype, do_sample=False)
            batched = plainly_generated(rows, PLAIN_BATCH, dtype, do_sample=False)
            own, next_ = agree(said(rows, dtype), alone), agree(said(rows, dtype, forced=alone), alone)
            unit = f"of first 32 tokens, {len(rows)} requests"
            made += [
                Row(f"{name}: as plain alone", own, unit, f"at least {bar}", own >= bar),
                Row(f"{name}: plain batched, as plain alone", agree(batched, alone), unit, ""),
                Row(
                    f"{name}: each next token, after plain's own", next_, unit, f"at least {bar}", next_ >= bar
                ),
            ]
        made.append(apart(dtype))
    return made


def apart(dtype: torch.dtype) -> Row:
    asked = feedback("one")[::4]
    pairs = zip(scored(asked, dtype), plainly_scored(token_ids(asked), dtype), strict=True)
    most = max(abs(a - b) for own, theirs in pairs for a, b in zip(own, theirs, strict=True))
    exact = dtype == torch.float32
    asks = "under 0.001" if exact else ""
    return Row(f"scores, {dtype}: furthest from plain", most, "nats", asks, most < 1e-3 or not exact)


def said(rows: list[list[int]], dtype: torch.dtype, forced: list[list[int]] | None = None) -> list[list[int]]:
    """Greedy; with ``forced``, what is said next after each of these tokens."""
    best: list[list[int]] = [[] for _ in rows]

    def draw(_: Draws, logits_rv: torch.Tensor, numbers: list[int], step: int) -> torch.Tensor:
        tokens = logits_rv.float().argmax(-1)
        for number, token in zip(numbers, tokens.tolist(), strict=True):
            best[number].append(token)
        if forced is not None:
            tokens = torch.tensor([forced[number][step] for number in numbers], device=tokens.device)
        return tokens

    with mock.patch.object(Draws, "__call__", draw):
        how = Decoding([0] * len(rows), 0.0, NEW, ())
        ours(dtype)._engine.generate(rows, how, threading.Event())
    return best


def agree(rows: list[list[int]], others: list[list[int]]) -> float:
    """Share of the first 32 tokens that are the same; where only one has ended, no token is."""
    pairs = [(a[:32], b[:32]) for a, b in zip(rows, others, strict=True)]
    same = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
    return same / sum(max(len(a), len(b)) for a, b in pairs)


# -- limits


class Work(NamedTuple):
    body: int
    """Tokens through the layers, at the least."""
    head: int
    """Tokens through the projection to the vocabulary, at the least."""
    steps: int
    """Each of which reads all weights; 0 where nothing is generated."""


class Limits(NamedTuple):
    flops: float
    """Of a large bfloat16 matrix product, a second; the best of ten."""
    bandwidth: float
    """Bytes a second read from memory, the best of ten."""

    @staticmethod
    def measured() -> Limits:
        a, b = torch.randn(2, 4096, 4096, device=device()).to(best_dtype())
        much = torch.ones(2**28, dtype=torch.int8, device=device()).view(torch.int64)
        product = max(timed(lambda: int((a @ b)[0, 0] != 0.5) and 2 * 4096**3).rate for _ in range(10))
        return Limits(product, max(timed(lambda: int(much.sum() != 0) and much.nbytes).rate for _ in range(10)))

    def shares(self, name: str, work: Work, own: list[Measured]) -> list[Row]:
        """Attention is not counted, nor the keys and values that are read."""
        model, seconds = plain(best_dtype()), statistics.median(run.seconds for run in own)
        head = model.get_output_embeddings().weight.numel()
        body = (
            sum(p.numel() for p in model.parameters()) - head
        )  # the embedding and the projection are one here
        rate = 2 * (body * work.body + head * work.head) / seconds
        read = work.steps * (body + head) * model.get_output_embeddings().weight.element_size() / seconds
        made = [Row(f"{name}: of the matrix rate", rate / self.flops, f"of {self.flops / 1e9:.0f} GFLOP/s", "")]
        if read:
            unit = f"of {self.bandwidth / 1e9:.0f} GB/s"
            made.append(Row(f"{name}: of the memory's rate, weights alone", read / self.bandwidth, unit, ""))
        return made


def beside_vllm(
    name: str, unit: str, rows: list[list[int]], done: int, bar: float, own: list[Measured]
) -> list[Row]:
    python = os.environ.get("CAI_VLLM_PYTHON")
    if not python:
        print("no vLLM: CAI_VLLM_PYTHON names no Python that has it")
        return []
    asked = json.dumps({"model": str(BASE), "prompts": rows, "max_tokens": NEW, "temperature": 1.0})
    script = str(Path(__file__).parent / "vllm_workload.py")
    ran = subprocess.run([python, script], input=asked, stdout=subprocess.PIPE, text=True)
    if ran.returncode:  # its reason stands above; the rows that need no vLLM are still worth having
        return [Row(f"{name}: vLLM did not run", 0, "", f"at least {bar:g} times vLLM", False)]
    made = json.loads(ran.stdout)
    ratio = statistics.median(run.rate for run in own) / (done / made["cold"])
    return [
        Row(f"{name}: vLLM {made['version']}, cold", done / made["cold"], f"{unit}/s", ""),
        Row(f"{name}: vLLM {made['version']}, warm", done / made["warm"], f"{unit}/s", ""),
        Row(f"{name}: faster than vLLM, both cold", ratio, "times", f"at least {bar:g}", ratio >= bar),
    ]


def main() -> None:
    limits = Limits.measured()
    report("engines", critique_rows(limits) + chat_rows(limits) + feedback_rows(limits) + agreement_rows())


if __name__ == "__main__":
    main()
