"""The shipped configurations are read by the parsers of the programs that they are for, where these are installed."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import shlex
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SET = {"MODEL": "some/model", "CAI_REWARD_URL": "http://127.0.0.1:8300/token"}
"""What a user sets for the scripts."""


def found(package: str) -> Path:
    """Return the folder of an installed package without importing it; skip the test if there is none."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def arguments(script: str, tmp_path: Path) -> list[str]:
    """Return the arguments that a script gives to Python: it is run with one that only prints them."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nfor one in "$@"; do printf "%s\\n" "$one"; done\n')
    python.chmod(0o755)
    environment = os.environ | SET | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(EXAMPLES / script)], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["fsdp2", "deepspeed_zero2", "deepspeed_zero3"])
def test_accelerate_reads_its_configurations(name: str) -> None:
    config_args = pytest.importorskip("accelerate.commands.config.config_args")
    path = EXAMPLES / "accelerate" / f"{name}.yaml"
    read = config_args.load_config_from_file(str(path))
    assert read.num_processes == 8
    if name == "fsdp2":
        assert (read.distributed_type.value, read.fsdp_config["fsdp_version"]) == ("FSDP", 2)
        return
    assert (read.distributed_type.value, read.deepspeed_config["zero_stage"]) == ("DEEPSPEED", int(name[-1]))


def test_every_key_of_fsdp_is_an_option_of_accelerate_launch() -> None:
    import yaml

    launch = pytest.importorskip("accelerate.commands.launch")
    known = {option.dest for option in launch.launch_command_parser()._actions}
    for name in ("fsdp2", "deepspeed_zero2", "deepspeed_zero3"):
        config = yaml.safe_load((EXAMPLES / "accelerate" / f"{name}.yaml").read_text())
        options = {**config.get("fsdp_config", {}), **config.get("deepspeed_config", {})}
        assert options.keys() <= known


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, by a default of TRL
def test_trl_reads_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = pytest.importorskip("trl.scripts.grpo")
    monkeypatch.syspath_prepend(str(EXAMPLES / "trl"))
    for key, value in SET.items():
        monkeypatch.setenv(key, value)
    script, training, _, data = scripts.make_parser().parse_args_and_config(
        ["--config", str(EXAMPLES / "trl" / "grpo.yaml"), "--use_cpu", "true", "--bf16", "false"]
    )
    assert script.reward_funcs == ["served_reward.reward"]
    assert (training.beta, data.datasets[0].data_files) == (0.04, "data/prompts.jsonl")
    module, name = script.reward_funcs[0].rsplit(".", 1)
    assert callable(getattr(importlib.import_module(module), name))


def options_of(source: Path) -> argparse.ArgumentParser:
    """Return the parser that a script of OpenRLHF makes where it is run; its imports need GPUs."""
    body = next(node for node in ast.parse(source.read_text()).body if isinstance(node, ast.If)).body
    last = next(at for at, node in enumerate(body) if "parse_args" in ast.unparse(node))
    names: dict[str, Any] = {"argparse": argparse, "datetime": datetime}
    exec(compile(ast.Module(body[:last], []), str(source), "exec"), names)
    parser: argparse.ArgumentParser = names["parser"]
    return parser


def test_openrlhf_reads_its_script(tmp_path: Path) -> None:
    parser = options_of(found("openrlhf") / "cli" / "train_ppo_ray.py")
    module, *options = arguments("openrlhf/rloo.sh", tmp_path)[1:]
    assert module == "openrlhf.cli.train_ppo_ray"
    read = vars(parser.parse_args(options))
    assert read["reward.remote_url"] == f"{SET['CAI_REWARD_URL']}/get_reward"
    assert (read["algo.advantage.estimator"], read["data.label_key"]) == ("rloo", "label")
    assert read["rollout.batch_size"] * read["rollout.n_samples_per_prompt"] == read["train.batch_size"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Hydra, by a newer omegaconf
def test_verl_composes_its_script(tmp_path: Path) -> None:
    hydra = pytest.importorskip("hydra")
    configs = found("verl") / "trainer" / "config"
    module, *options = arguments("verl/grpo.sh", tmp_path)[1:]
    assert module == "verl.trainer.main_ppo"
    with hydra.initialize_config_dir(str(configs), version_base=None):
        config = hydra.compose("ppo_trainer", options)
    reward = config.reward.custom_reward_function
    assert (reward.name, reward.reward_kwargs.url) == ("compute_score", SET["CAI_REWARD_URL"])
    assert config.actor_rollout_ref.model.path == SET["MODEL"]


@pytest.mark.parametrize("script", ["openrlhf/rloo.sh", "verl/grpo.sh"])
def test_a_script_asks_for_what_the_user_must_set(script: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in SET}
    done = subprocess.run(
        ["bash", str(EXAMPLES / script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "MODEL" in done.stderr
    assert shlex.split((EXAMPLES / script).read_text(), comments=True)
