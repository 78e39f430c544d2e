"""Critique and revision in distilabel. ``benchmarks/peers.py`` runs this in a Python that has distilabel.

It reads a JSON object from stdin: model (a folder, or null), prompts, critique, revision and max_tokens. It prints the
seconds and the number of records. Without a model the answers are constant, so that the runner alone is measured.
"""

import json
import sys
import time
from typing import Any

from distilabel.models import LLM, AsyncLLM, TransformersLLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import TextGeneration

request = json.load(sys.stdin)


class Constant(LLM):
    """A model that answers at once with one constant text."""

    def load(self) -> None:
        super().load()

    @property
    def model_name(self) -> str:
        return "constant"

    def generate(self, inputs: list[Any], num_generations: int = 1) -> list[Any]:
        statistics = {"input_tokens": [1], "output_tokens": [1]}
        return [{"generations": ["I would rather help."], "statistics": statistics} for _ in inputs]


def model() -> LLM | AsyncLLM:
    if request["model"] is None:
        return Constant()
    settings = {"max_new_tokens": request["max_tokens"], "temperature": 1.0, "do_sample": True}
    return TransformersLLM(model=request["model"], torch_dtype="bfloat16", generation_kwargs=settings)


@step(inputs=["prompt", "answer"], outputs=["instruction"])
def to_critique(inputs: StepInput) -> Any:
    for row in inputs:
        row["instruction"] = f"{row['prompt']}\n\n{row['answer']}\n\n{request['critique']}"
    yield inputs


@step(inputs=["prompt", "answer", "critique"], outputs=["instruction"])
def to_revise(inputs: StepInput) -> Any:
    for row in inputs:
        row["instruction"] = (
            f"{row['prompt']}\n\n{row['answer']}\n\n{request['critique']}\n\n{row['critique']}\n\n{request['revision']}"
        )
    yield inputs


def main() -> None:
    batch = 16
    with Pipeline(name="critique-and-revise") as pipeline:
        rows = LoadDataFromDicts(data=[{"prompt": p} for p in request["prompts"]], batch_size=batch)
        steps = [
            TextGeneration(
                name=name,
                llm=model(),
                input_batch_size=batch,
                input_mappings={"instruction": column},
                output_mappings={"generation": name},
            )
            for name, column in (("answer", "prompt"), ("critique", "instruction"), ("revised", "instruction"))
        ]
        answer, critique, revised = steps
        rows >> answer >> to_critique(input_batch_size=batch) >> critique
        critique >> to_revise(input_batch_size=batch) >> revised
    start = time.perf_counter()
    output = pipeline.run(use_cache=False)
    seconds = time.perf_counter() - start
    texts = [row["revised"] for row in output["default"]["train"]]
    print("RESULT" + json.dumps({"seconds": seconds, "records": sum(bool(text) for text in texts)}))


if __name__ == "__main__":
    main()
