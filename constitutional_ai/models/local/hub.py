"""Ask the hub for a model only if it can be reached, so that a machine without a network is told so at once.

huggingface_hub tries each of several files again and again: minutes, and a page of warnings.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

from constitutional_ai.errors import ModelError

SECONDS = 4.0
"""How long to wait for the hub's address to answer."""


def check_hub(model: str) -> None:
    """Do nothing if the files of a hub id are here, or the hub answers; else stop asking it, or raise ModelError."""
    from huggingface_hub import constants, try_to_load_from_cache

    is_here = isinstance(try_to_load_from_cache(model, "config.json"), str)
    if constants.HF_HUB_OFFLINE:
        if not is_here:
            raise ModelError(_nowhere(model, "HF_HUB_OFFLINE is set, so the hub is not asked"))
    elif not _answers(constants.ENDPOINT):
        if not is_here:
            raise ModelError(_nowhere(model, f"{urlsplit(constants.ENDPOINT).hostname} does not answer"))
        constants.HF_HUB_OFFLINE = True


def _nowhere(model: str, why: str) -> str:
    return f"cannot load 'hf:{model}': it is no folder here, and {why}. Write hf: and the path of a model's folder."


def _answers(url: str) -> bool:
    """Return whether something accepts a connection at an address. A proxy is trusted: only it knows."""
    address = urlsplit(url)
    if address.scheme in getproxies():
        return True
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=SECONDS).close()
    except OSError:
        return False
    return True
