"""The examples for Slurm and SkyPilot name the shards that the command takes, whatever index they are given."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from constitutional_ai.runs import layout
from constitutional_ai.runs.shards import Shard

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SLURM, SKY = EXAMPLES / "slurm.sh", EXAMPLES / "sky.yaml"


def typed(script: str, folder: Path, **variables: str) -> list[list[str]]:
    """The words of each ``cai`` that a script runs, with nothing but its variables and commands that print."""
    for name, body in (("cai", 'printf "%s\\n" "$*"'), ("srun", 'exec "$@"')):
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    path = f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"
    out = subprocess.run(
        ["bash", "-c", script], env={"PATH": path, **variables}, capture_output=True, text=True, check=True
    )
    return [line.split() for line in out.stdout.splitlines()]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


@pytest.mark.parametrize("path", [SLURM, SKY], ids=lambda path: path.name)
def test_an_example_is_short_and_names_stages_that_can_be_made_in_shards(path: Path) -> None:
    text = path.read_text()
    assert 20 <= len(text.splitlines()) <= 40
    assert set(re.findall(r"STAGE(?:=|: |:-)(0[0-8][a-z-]+)", text)) <= set(layout.SHARDED)


def test_every_index_of_the_array_is_one_shard_of_all(tmp_path: Path) -> None:
    text = SLURM.read_text()
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    array = re.search(r"^#SBATCH --array=(\d+)-(\d+)$", text, re.MULTILINE)
    assert array
    indices = range(int(array[1]), int(array[2]) + 1)
    shards = []
    for index in indices:
        # A second try of two of them has a count of 2.
        (words,) = typed(text, tmp_path, SLURM_ARRAY_TASK_ID=str(index), SLURM_ARRAY_TASK_COUNT="2")
        shards.append(Shard.parse(option(words, "--shard")))
        assert option(words, "--until") == layout.RESPONSES
    assert shards == Shard.all_of(len(indices))


def test_every_machine_of_the_job_is_one_shard_of_all(tmp_path: Path) -> None:
    job = yaml.safe_load(SKY.read_text())
    fields = {"name", "num_nodes", "resources", "envs", "workdir", "volumes", "setup", "run"}
    assert set(job) == fields
    (volume,) = job["volumes"]
    shards = []
    for rank in range(job["num_nodes"]):
        variables = {"SKYPILOT_NODE_RANK": str(rank), "SKYPILOT_NUM_NODES": str(job["num_nodes"])}
        (words,) = typed(job["run"], tmp_path, **variables, **job["envs"])
        shards.append(Shard.parse(option(words, "--shard")))
        assert f"out={volume}" in " ".join(words)
    assert shards == Shard.all_of(job["num_nodes"])
