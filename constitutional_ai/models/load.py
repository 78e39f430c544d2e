"""Load a model by its name. A new backend needs a file, and an entry in ``SCHEMES``, ``load_model`` and ``_fault``."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

from constitutional_ai.errors import InputError, did_you_mean
from constitutional_ai.models.abilities import close
from constitutional_ai.models.logins import keep_logins
from constitutional_ai.models.model import Model
from constitutional_ai.models.scores_only import check_writes
from constitutional_ai.models.scripted import SCRIPTS, scripted
from constitutional_ai.runs import layout
from constitutional_ai.safe_text import without_login

Engine = Literal[
    "native", "native-int8", "openvino", "openvino-int8", "transformers", "vllm", "transformers-int8"
]
"""The last one is the former name of native-int8, in recipes of older runs."""
SCHEMES = {
    "bundled": "bundled:smollm2-135m",
    "hf": "hf:<folder or hub id>",
    "server": "server:<model>@<url>",
    "anthropic": "anthropic:<model>",
    "scripted": "scripted:echo",
}
LOCAL_SCHEMES = ("hf:", "bundled:")
"""Prefixes of the names of models that run in this process."""


def load_model(name: str, *, engine: str | None = None, say: Callable[[str], None] | None = None) -> Model:
    """Load the model of that name. Raises InputError or ModelError.

    ``engine`` runs local weights; None takes ``CAI_ENGINE``, or the fastest that ``pick`` knows of. The choice is
    reported to ``say``, or to the log without it.
    """
    name = keep_logins(name)
    check_name(name)
    check_writes(name)
    scheme, _, rest = name.partition(":")
    match scheme:
        case "scripted":
            return scripted(rest)
        case "server":
            from constitutional_ai.models.hosted.server import ServerModel

            model, url = server_of(rest)
            return ServerModel(model, url, say or logging.getLogger(__name__).info)
        case "anthropic":
            from constitutional_ai.models.hosted.anthropic import AnthropicModel

            return AnthropicModel(rest, say or logging.getLogger(__name__).info)
        case _:
            from constitutional_ai.models.local.choose import LOG, load_weights

            return load_weights(name, reachable_path(name), engine=engine, say=say or LOG.info)


@contextmanager
def loaded(
    name: str, *, engine: str | None = None, say: Callable[[str], None] | None = None
) -> Iterator[Model]:
    """Yield the model of that name, and free its memory after the block.

    Its connections end with each event loop of the block. Inside a loop, use ``loaded_in_loop``.
    """
    model = load_model(name, engine=engine, say=say)
    try:
        yield model
    finally:
        del model


@asynccontextmanager
async def loaded_in_loop(
    name: str, *, engine: str | None = None, say: Callable[[str], None] | None = None
) -> AsyncIterator[Model]:
    """Yield the model of that name; close its connections and free its memory after the block."""
    with loaded(name, engine=engine, say=say) as model:
        try:
            yield model
        finally:
            await close(model)
            del model


def model_path(name: str) -> Path | str:
    """Return the folder or hub id of a model's weights. Raises InputError for a model without local weights."""
    check_name(name)
    scheme, _, rest = name.partition(":")
    if scheme == "bundled":
        from constitutional_ai.models.local.bundled import bundled_folder

        return bundled_folder(rest)
    if scheme != "hf":
        raise InputError(
            f"'{name}' has no weights on this machine. Name a model that begins with bundled: or hf:."
        )
    folder = Path(rest).expanduser()
    if rest.startswith((".", "/", "~")) and not folder.is_dir():
        raise InputError(f"no folder '{rest}'. Write hf: and the path of a model's folder, or a hub id.")
    return folder if folder.is_dir() else rest


def reachable_path(name: str) -> Path | str:
    """Return what ``model_path`` does. Raises ModelError at once for a hub id that is not here, without a network."""
    path = model_path(name)
    if isinstance(path, str):
        from constitutional_ai.models.local.hub import check_hub

        check_hub(path)
    return path


def name_of_weights(path: str) -> str:
    """Return the name of a hub id or folder for other machines: the id, ``bundled:NAME`` or ``folder:NAME``.

    The name of a folder that a stage of a run trained has the stage too, such as ``folder:03-sl-cai-model/model``.
    """
    from constitutional_ai.models.local.bundled import bundled_name

    folder = Path(path)
    if not folder.is_dir():
        return path
    parts = folder.resolve().parts[-2 if folder.name == layout.WEIGHTS else -1 :]
    return bundled_name(folder) or f"folder:{'/'.join(parts)}"


def hub_id(model: str) -> str | None:
    """Return the name of a model on the hub, or None if it has none.

    >>> hub_id("hf:some/model"), hub_id("hf:./folder"), hub_id("bundled:smollm2-135m")
    ('some/model', None, 'HuggingFaceTB/SmolLM2-135M-Instruct')
    """
    from constitutional_ai.models.local.bundled import HUB_ID

    scheme, _, rest = model.partition(":")
    if scheme == "bundled":
        return HUB_ID[rest]
    named = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", rest, re.ASCII) and not Path(rest).exists()
    return rest if named else None


def check_name(name: str) -> None:
    """Raise InputError if the name is invalid. Nothing is loaded."""
    name = without_login(name)
    scheme, _, rest = name.partition(":")
    if scheme not in SCHEMES:
        forms = ", ".join(SCHEMES.values())
        raise InputError(f"unknown model '{name}'.{did_you_mean(scheme, SCHEMES)} A model is one of {forms}.")
    if fault := _fault(scheme, rest):
        raise InputError(fault)


def server_of(rest: str) -> tuple[str, str]:
    """Return the model and the addresses of ``<model>@<url>``. Names of models may hold an @ themselves.

    >>> server_of("some-model@20240620@http://127.0.0.1/v1")
    ('some-model@20240620', 'http://127.0.0.1/v1')
    """
    *_, at = [len(rest), *[start.start() for start in re.finditer(r"@(?=[a-z]+://)", rest)]]
    return rest[:at], rest[at + 1 :]


def _fault(scheme: str, rest: str) -> str | None:
    """Return what is wrong with a name, or None."""
    from constitutional_ai.models.local.bundled import BUNDLED

    match scheme:
        case "bundled" if rest not in BUNDLED:
            return f"unknown embedded model '{rest}'.{did_you_mean(rest, BUNDLED)}"
        case "scripted" if rest not in SCRIPTS:
            return f"unknown scripted model '{rest}'.{did_you_mean(rest, SCRIPTS)}"
        case "hf" | "anthropic" if not rest:
            return f"'{scheme}:' lacks a part: write {SCHEMES[scheme]}"
        case "hf":
            folder = Path(rest).expanduser()
            if folder.is_dir() and not (folder / "config.json").exists():
                return f"'{rest}' holds no config.json, so it is not a model. Name the folder that has it."
        case "server":
            model, urls = server_of(rest)
            if any("@" in url for url in urls.split(",")):
                return "a server's address has an @ too many: write %40, %2F, %3F and %23 for @ / ? # in a password"
            if not (model and all("://" in url for url in urls.split(","))):
                return f"'{scheme}:{rest}' lacks a part: write server:<model>@http://<host>:<port>/v1"
    return None
