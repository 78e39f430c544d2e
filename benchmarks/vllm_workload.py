"""Runs in a Python that has vLLM, not this project: prompts from stdin as JSON, seconds to stdout as JSON.

In: ``{"model": folder, "prompts": [[token ids], …], "max_tokens": 64, "temperature": 1.0}``.
Out: ``{"load": s, "cold": s, "warm": s, "tokens": n, "version": v}``. All prompts are sent at once; the warm time is
that of sending the same prompts again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def timed(llm: Any, prompts: list[Any], samplings: list[Any]) -> tuple[float, int]:
    began = time.perf_counter()
    said = llm.generate(prompts, samplings, use_tqdm=False)
    return time.perf_counter() - began, sum(len(one.outputs[0].token_ids) for one in said)


def main() -> None:
    asked = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM and its processes print goes elsewhere
    import vllm

    began = time.perf_counter()
    llm = vllm.LLM(
        asked["model"],
        dtype="bfloat16",
        enable_prefix_caching=True,
        enable_chunked_prefill=False,  # with it, requests that have a seed kill vLLM 0.32 on a CPU
        max_model_len=4096,
        gpu_memory_utilization=0.4,  # on a CPU too, of its memory; the default wants nearly all, and we are in it
    )
    load = time.perf_counter() - began
    how = {"max_tokens": asked["max_tokens"], "temperature": asked["temperature"]}
    samplings = [vllm.SamplingParams(seed=seed, **how) for seed in range(len(asked["prompts"]))]
    prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
    # What is compiled or allocated on the first call is no part of either time; these tokens are in no prompt's cache.
    llm.generate([{"prompt_token_ids": [7, 8, 9] * 8}], vllm.SamplingParams(max_tokens=4), use_tqdm=False)
    cold, tokens = timed(llm, prompts, samplings)
    warm, _ = timed(llm, prompts, samplings)
    made = {"load": load, "cold": cold, "warm": warm, "tokens": tokens, "version": vllm.__version__}
    answers.write(json.dumps(made))
    answers.close()


if __name__ == "__main__":
    main()
