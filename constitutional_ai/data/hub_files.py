"""Files of data sets on Hugging Face's hub, by the names that its own tools give them: ``hf://datasets/OWNER/NAME/FILE``.

A file is downloaded once and kept in the hub's own cache. A revision may follow the name, after an @.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from constitutional_ai.errors import InputError, shortened

NAME = re.compile(r"hf:/{1,2}datasets/([\w.-]+/[\w.-]+?)(?:@([\w./-]+?))?(?:/(.+))?", re.ASCII)
"""A path has lost one of the two slashes."""
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Ends of the names of files that may hold rows, each also with ``.gz``."""
SHOWN = 5


def local_file(name: str | Path) -> Path:
    """Return the path of a file on this machine, and of one on the hub after downloading it.

    A data set with one file of rows may be named without it. Raises InputError.
    """
    if not str(name).startswith("hf:/"):
        return Path(name)
    named = NAME.fullmatch(str(name))
    if named is None:
        raise InputError(f"'{shortened(str(name))}' names no data set. Write hf://datasets/OWNER/NAME/FILE")
    owner_name, revision, file = named.groups()
    with hub_errors(f"data set {owner_name}"):
        from huggingface_hub import hf_hub_download

        wanted: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
        return Path(hf_hub_download(owner_name, file or _only_file(owner_name, wanted), **wanted))


def _only_file(owner_name: str, wanted: dict[str, Any]) -> str:
    """Return the name of a data set's file of rows. Raises InputError, which lists some, unless it has one."""
    from huggingface_hub import HfApi

    names = sorted(HfApi().list_repo_files(owner_name, **wanted))
    rows = [name for name in names if name.removesuffix(".gz").endswith(SUFFIXES)]
    if len(rows) == 1:
        return rows[0]
    some = ", ".join(rows[:SHOWN]) + (" …" if len(rows) > SHOWN else "")
    if not rows:
        raise InputError(f"hf://datasets/{owner_name} holds no file of rows ({', '.join(SUFFIXES)}).")
    raise InputError(
        f"hf://datasets/{owner_name} holds {len(rows)} files of rows: {some}. Name one: "
        f"hf://datasets/{owner_name}/{rows[0]}"
    )


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn the hub's errors in a block into one sentence each, as InputError; ``what`` is asked for."""
    try:
        from huggingface_hub import errors
    except ImportError as error:
        raise InputError(
            "the hub needs huggingface_hub. Install it with: pip install 'constitutional-ai[local]'"
        ) from error
    unreachable: Any = vars(errors)["HTTPError"]  # of whichever HTTP client the library uses
    try:
        yield
    except InputError:
        raise
    except errors.HFValidationError as error:
        raise InputError(f"the hub allows no such name as that of {what}. Write OWNER/NAME.") from error
    except errors.OfflineModeIsEnabled as error:
        raise InputError(
            f"{what} is not on this machine, and HF_HUB_OFFLINE is set. Unset it, or name a file."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise InputError(
            f"the hub cannot be reached, and {what} is not on this machine. Connect, then type the same command."
        ) from error
    except errors.HfHubHTTPError as error:
        raise InputError(_refused(error, what)) from error
    except (unreachable, ConnectionError) as error:
        raise InputError(
            f"the hub cannot be reached for {what}. Connect, then type the same command."
        ) from error


def _refused(error: Any, what: str) -> str:
    """Return a sentence about a request that the hub refused."""
    from huggingface_hub import errors

    status = error.response.status_code
    login = "Log in with: hf auth login (or set HF_TOKEN)."
    if isinstance(error, errors.GatedRepoError):
        return f"{what} asks for its conditions to be accepted. Accept them on its page. {login}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{what} has no such revision. Correct what follows the @."
    if isinstance(error, errors.EntryNotFoundError):
        return f"{what} has no such file. Look at its list of files on the hub."
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return f"the hub has no {what}, or does not show it to you. Correct the name. {login}"
    if status == 403:
        return f"you may not write to {what}. Name a place of yours. {login}"
    return f"the hub refused {what} with status {status}. Try again later."
