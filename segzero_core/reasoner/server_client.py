"""The client of a chat-completions server: connections, time limits, and what is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from segzero_core.errors import ConfigError
from segzero_core.reasoner.server_address import ServerAddress

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# The client's own loggers print whole requests: the image, and headers.
_CLIENT_LOGGERS: Final = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
_CLOSE_TIMEOUT_S: Final = 2.0
_RETRIED_STATUS: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_FIRST_DELAY_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How long a server may take, and how much it may say."""

    connect_s: float = 5.0  # until the connection stands [s]
    first_token_s: float = 60.0  # from the request to the first text [s]
    stall_s: float = 20.0  # between two pieces of text [s]
    total_s: float = 120.0  # from the query to the end of the reply, retries included [s]
    reply_chars: int = 100_000  # longest reply; a longer one is an error
    retries: int = 2  # how often a request is repeated when nothing has come yet

    def __post_init__(self) -> None:
        for name in ("connect_s", "first_token_s", "stall_s", "total_s"):
            value = getattr(self, name)
            if not 0 < value <= 86_400:  # NaN is refused too
                raise ConfigError(f"{name}: expected 0 to 86,400 seconds, got {value!r}")


class BackgroundLoop:
    """An asyncio loop in a thread of its own, for clients that work beside each other."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="segzero-server", daemon=True
        )
        self._thread.start()

    def submit(self, work: Any) -> Any:
        """Run a coroutine in the loop; returns its `concurrent.futures.Future`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Cancel what runs and end the thread."""

        async def cancel_all() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        if self._loop.is_closed():
            return
        with contextlib.suppress(TimeoutError):
            self.submit(cancel_all()).result(timeout=_CLOSE_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()


def make_client(address: ServerAddress, key: str, limits: ServerLimits) -> AsyncOpenAI:
    """Return a client that follows no redirect and retries nothing by itself.

    Raises:
        ConfigError: The `openai` package is missing.
    """
    try:
        import openai
    except ImportError as error:
        raise ConfigError(
            "a reasoner on a server needs the package openai: pip install 'segzero[remote]'"
        ) from error
    for name in _CLIENT_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    timeout = openai.Timeout(limits.total_s, connect=limits.connect_s)
    http_client = openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout)
    return openai.AsyncOpenAI(
        base_url=address.url,
        api_key=key or "none",
        max_retries=0,
        timeout=timeout,
        http_client=http_client,
    )


def retry_delay_s(error: Exception, attempt: int) -> float | None:
    """Return how long to wait before a request is repeated; None if that is of no use."""
    status = getattr(error, "status_code", None)
    if status is None:
        return _backoff_s(attempt) if _is_connection_error(error) else None
    if status not in _RETRIED_STATUS:
        return None
    asked = getattr(getattr(error, "response", None), "headers", {}).get("retry-after", "")
    with contextlib.suppress(ValueError):
        return max(0.0, min(float(asked), 3600.0))
    return _backoff_s(attempt)


def _backoff_s(attempt: int) -> float:
    return float(_FIRST_DELAY_S * 2**attempt * random.uniform(0.8, 1.2))


def _is_connection_error(error: Exception) -> bool:
    import openai

    return isinstance(error, openai.APIConnectionError)
