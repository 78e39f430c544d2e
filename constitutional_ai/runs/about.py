"""Read ``run.json``: which stages of a run were started, and what each was made with."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from constitutional_ai.errors import InputError
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import load_json


@with_config(ConfigDict(extra="allow"))
class MadeWith(TypedDict):
    """The settings of a stage, and the digests of its inputs; also its software and engines, if they are known."""

    config: dict[str, Any]
    inputs: dict[str, str]


class About(TypedDict, total=False):
    """What ``run.json`` says; other keys are of other versions."""

    name: str
    date: str | None
    stages: dict[str, MadeWith]


def read_about(folder: Path) -> About:
    """Return the content of ``run.json``; nothing if there is none. Raises InputError.

    Names of stages become paths, which are read and deleted: one that leads out of the run is an error.
    """
    path = folder / layout.RUN
    about = load_json(path, About) or About()
    for stage in about.get("stages", {}):
        if PurePath(stage).is_absolute() or not stage or {"..", "."} & set(stage.split("/")):
            raise InputError(f"{path}: stages: '{stage}' is not the name of a stage. Delete it.")
    return about
