"""vLLM on prompts from stdin, for a Python that has vLLM and not this project. Both sides speak JSON.

In: ``{"model": folder, "prompts": [[token ids], …], "max_tokens": 64, "temperature": 1.0}``.
Out: ``{"cold": seconds, "warm": seconds, "version": v}``. All prompts are sent at once; the warm time is that of
sending the same prompts again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def seconds(llm: Any, prompts: list[Any], samplings: list[Any]) -> float:
    start = time.perf_counter()
    llm.generate(prompts, samplings, use_tqdm=False)
    return time.perf_counter() - start


def main() -> None:
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM and its processes print must not mix with the answer
    import vllm

    llm = vllm.LLM(
        request["model"],
        dtype="bfloat16",
        enable_prefix_caching=True,
        enable_chunked_prefill=False,  # with it, requests that have a seed kill vLLM 0.32 on a CPU
        max_model_len=4096,
        gpu_memory_utilization=0.4,  # of a CPU's memory too; the default takes nearly all, and our engine is in it
    )
    settings = {"max_tokens": request["max_tokens"], "temperature": request["temperature"]}
    samplings = [vllm.SamplingParams(seed=seed, **settings) for seed in range(len(request["prompts"]))]
    prompts = [{"prompt_token_ids": ids} for ids in request["prompts"]]
    # The first call compiles and allocates, which belongs to neither time; its tokens are in no prompt's cache.
    llm.generate([{"prompt_token_ids": [7, 8, 9] * 8}], vllm.SamplingParams(max_tokens=4), use_tqdm=False)
    cold = seconds(llm, prompts, samplings)
    warm = seconds(llm, prompts, samplings)
    answers.write(json.dumps({"cold": cold, "warm": warm, "version": vllm.__version__}))
    answers.close()


if __name__ == "__main__":
    main()
