"""From a model's name to a model. A new backend is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from constitutional_ai.errors import InputError, did_you_mean
from constitutional_ai.models.model import Model
from constitutional_ai.models.scripted import SCRIPTS, scripted

Engine = Literal["transformers", "transformers-int8", "openvino", "openvino-int8", "vllm"]
SCHEMES = {
    "bundled": "bundled:smollm2-135m",
    "hf": "hf:<folder or hub id>",
    "server": "server:<model>@<url>",
    "anthropic": "anthropic:<model>",
    "scripted": "scripted:echo",
}


def check_name(name: str) -> None:
    """Raises InputError when no backend can have this name. Loads nothing."""
    from constitutional_ai.models.local.bundled import BUNDLED

    scheme, _, rest = name.partition(":")
    if scheme not in SCHEMES:
        forms = ", ".join(SCHEMES.values())
        raise InputError(f"unknown model '{name}'.{did_you_mean(scheme, SCHEMES)} A model is one of {forms}.")
    if scheme == "bundled" and rest not in BUNDLED:
        raise InputError(f"unknown embedded model '{rest}'.{did_you_mean(rest, BUNDLED)}")
    model, _, urls = rest.partition("@")
    if scheme == "server" and not (model and all("://" in url for url in urls.split(","))):
        raise InputError(f"'{name}' lacks a part: write server:<model>@http://<host>:<port>/v1")
    if scheme == "anthropic" and not rest:
        raise InputError("write anthropic:<model>")
    if scheme == "scripted" and rest not in SCRIPTS:
        raise InputError(f"unknown scripted model '{rest}'.{did_you_mean(rest, SCRIPTS)}")
    if scheme == "hf" and not rest:
        raise InputError("write hf:<folder or hub id>")
    if (
        scheme == "hf"
        and Path(rest).expanduser().is_dir()
        and not (Path(rest).expanduser() / "config.json").exists()
    ):
        raise InputError(f"'{rest}' holds no config.json, so no model. Name the folder that has it.")


def load_model(name: str, *, engine: str | None = None, say: Callable[[str], None] | None = None) -> Model:
    """The model of that name, ready to answer. Raises InputError or ModelError.

    ``engine`` is what weights that are here run on; None takes ``CAI_ENGINE``, or the fastest that is installed.
    ``say``, or else the log, is told which.
    """
    check_name(name)
    scheme, _, rest = name.partition(":")
    if scheme == "scripted":
        return scripted(rest)
    if scheme == "server":
        from constitutional_ai.models.hosted.server import ServerModel

        model, _, url = rest.partition("@")
        return ServerModel(model, url)
    if scheme == "anthropic":
        from constitutional_ai.models.hosted.anthropic import AnthropicModel

        return AnthropicModel(rest)
    from constitutional_ai.models.local.choose import LOG, run

    return run(name, model_path(name), engine=engine, say=say or LOG.info)


def model_path(name: str) -> Path | str:
    """Where the weights of a trainable model are: a folder, or a hub id. Raises InputError for any other."""
    check_name(name)
    scheme, _, rest = name.partition(":")
    if scheme == "bundled":
        from constitutional_ai.models.local.bundled import bundled_folder

        return bundled_folder(rest)
    if scheme != "hf":
        raise InputError(f"'{name}' has no weights here that could be trained. Name one as bundled: or hf:.")
    folder = Path(rest).expanduser()
    if rest.startswith((".", "/", "~")) and not folder.is_dir():
        raise InputError(f"no folder '{rest}' to load a model from.")
    return folder if folder.is_dir() else rest


@contextmanager
def loaded(
    name: str, *, engine: str | None = None, say: Callable[[str], None] | None = None
) -> Iterator[Model]:
    """A model for the length of one pass; its memory is free afterwards."""
    model = load_model(name, engine=engine, say=say)
    try:
        yield model
    finally:
        del model
