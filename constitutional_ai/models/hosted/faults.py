"""Tell what a failed request says: about the server, about this one request, or about what the user must change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from constitutional_ai.errors import BrokenReply, CaiError, ModelError, RecordError
from constitutional_ai.models.hosted import bounded
from constitutional_ai.safe_text import whole_characters

Fault = Literal["away", "overloaded", "silent", "failing", "final"]
"""``away``: nobody answers at the address. ``overloaded``: the server asks for time. ``silent``: it took the request
and never answered. ``failing``: this request went wrong, another try may go well. ``final``: it will not."""
UNPARSED = (ValueError, OverflowError, RecursionError)
"""Errors of a client's parsers: broken JSON, a number too large, and nesting too deep."""
AWAY = (502, 504)
"""HTTP status codes of a gateway that does not reach the server."""
OVERLOADED = (429, 503, 529)
"""HTTP status codes of a server that is overloaded, or still loads its model."""
FAILING = (408, 409, 425, 500)
"""HTTP status codes of a request that may go well when it is sent again."""
FOREVER = 1e9
"""Seconds to which an endless ``Retry-After`` is cut."""


def fault_of(error: Exception, unreachable: type[Exception]) -> Fault:
    """Return the kind of an error of a client, whose error of a broken connection is ``unreachable``."""
    status = getattr(error, "status_code", None)
    if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
        return "silent"
    if isinstance(error, unreachable):
        # By name, because the client's HTTP library changes from version to version.
        return "silent" if type(error.__cause__).__name__ in ("ReadTimeout", "WriteTimeout") else "away"
    if status in OVERLOADED:
        quota = "insufficient_quota" in (getattr(error, "code", None), getattr(error, "type", None))
        return "final" if quota else "overloaded"
    return "away" if status in AWAY else "failing" if status in FAILING else "final"


def broken_reply(error: Exception) -> BrokenReply | None:
    """Return the BrokenReply that an error is, or that a client has wrapped; None if there is none."""
    return next((one for one in (error, error.__cause__) if isinstance(one, BrokenReply)), None)


def retry_after(error: Exception) -> float:
    """Return the seconds that a server demands to wait."""
    response: Any = getattr(error, "response", None)
    return seconds_of(response.headers.get("retry-after")) if response is not None else 0.0


def seconds_of(header: str | None) -> float:
    """Return the seconds of a ``Retry-After`` header, which may be a date; 0 without one."""
    try:
        seconds = float(header or 0)
        return min(max(0.0, seconds), FOREVER) if seconds == seconds else 0.0
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(header or "")
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


@contextmanager
def translating_errors(
    sdk: Any,
    base: type[Exception],
    message: Callable[[Exception], str],
    *,
    unreachable: str,
    refused: str,
    unknown: str,
) -> Iterator[None]:
    """Turn errors of a client into ModelError where the user must act, and RecordError where one request is bad.

    ``sdk`` is the module ``openai`` or ``anthropic``, whose errors have the same names but for their ``base``.
    ``message`` gives an error's text without the key. The original is never shown: its traceback may hold the key.
    """
    try:
        yield
    except (CaiError, RecordError) as error:
        error.args = (whole_characters(str(error)),)  # it may quote the server
        raise
    except UNPARSED as error:
        raise BrokenReply(f"the server's reply cannot be read: {message(error)[:200]}") from None
    except (sdk.APITimeoutError, TimeoutError):
        raise BrokenReply(
            f"no answer: nothing came for {bounded.SILENT_SECONDS:.0f} s, or no end within "
            f"{bounded.TOTAL_SECONDS:.0f} s"
        ) from None
    except sdk.APIConnectionError:
        raise ModelError(unreachable) from None
    except (sdk.AuthenticationError, sdk.PermissionDeniedError):
        raise ModelError(refused) from None
    except sdk.NotFoundError as error:
        raise ModelError(f"{unknown}: {message(error)}") from None
    except sdk.RateLimitError as error:  # only a quota that is used up: ``Pool`` waits for all else
        raise ModelError(f"the server's quota is used up: {message(error)}") from None
    except sdk.InternalServerError as error:
        raise BrokenReply(message(error)) from None
    except base as error:
        raise RecordError(message(error)) from None
