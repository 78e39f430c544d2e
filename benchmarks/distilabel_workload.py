"""The same critique and revision in distilabel: run by ``benchmarks/peers.py`` in a Python that has it.

Reads from standard input a JSON object of model (a folder, or null), prompts, critique, revision and max_tokens, and
prints seconds and records. Without a model the answers are constant: what is left is the runner.
"""

import json
import sys
import time
from typing import Any

from distilabel.models import LLM, AsyncLLM, TransformersLLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import TextGeneration

asked = json.load(sys.stdin)


class Constant(LLM):
    """Says one thing at once."""

    def load(self) -> None:
        super().load()

    @property
    def model_name(self) -> str:
        return "constant"

    def generate(self, inputs: list[Any], num_generations: int = 1) -> list[Any]:
        statistics = {"input_tokens": [1], "output_tokens": [1]}
        return [{"generations": ["I would rather help."], "statistics": statistics} for _ in inputs]


def model() -> LLM | AsyncLLM:
    if asked["model"] is None:
        return Constant()
    settings = {"max_new_tokens": asked["max_tokens"], "temperature": 1.0, "do_sample": True}
    return TransformersLLM(model=asked["model"], torch_dtype="bfloat16", generation_kwargs=settings)


@step(inputs=["prompt", "answer"], outputs=["instruction"])
def to_critique(inputs: StepInput) -> Any:
    for row in inputs:
        row["instruction"] = f"{row['prompt']}\n\n{row['answer']}\n\n{asked['critique']}"
    yield inputs


@step(inputs=["prompt", "answer", "critique"], outputs=["instruction"])
def to_revise(inputs: StepInput) -> Any:
    for row in inputs:
        row["instruction"] = (
            f"{row['prompt']}\n\n{row['answer']}\n\n{asked['critique']}\n\n{row['critique']}\n\n{asked['revision']}"
        )
    yield inputs


def main() -> None:
    batch = 16
    with Pipeline(name="critique-and-revise") as pipeline:
        rows = LoadDataFromDicts(data=[{"prompt": p} for p in asked["prompts"]], batch_size=batch)
        steps = [
            TextGeneration(
                name=name,
                llm=model(),
                input_batch_size=batch,
                input_mappings={"instruction": given},
                output_mappings={"generation": name},
            )
            for name, given in (("answer", "prompt"), ("critique", "instruction"), ("revised", "instruction"))
        ]
        answer, critique, revised = steps
        rows >> answer >> to_critique(input_batch_size=batch) >> critique
        critique >> to_revise(input_batch_size=batch) >> revised
    began = time.perf_counter()
    made = pipeline.run(use_cache=False)
    seconds = time.perf_counter() - began
    found = made["default"]["train"]
    texts = [row["revised"] for row in found]
    print("RESULT" + json.dumps({"seconds": seconds, "records": sum(bool(text) for text in texts)}))


if __name__ == "__main__":
    main()
