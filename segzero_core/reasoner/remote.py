"""A reasoner on a server that speaks the OpenAI chat-completions protocol.

vLLM, SGLang, llama.cpp, Ollama, TensorRT Edge-LLM and `transformers serve` do. The image is
squashed here and sent as PNG before the text, so that its tokens are a prefix that the server can
keep. Sampling is greedy and said explicitly; else a server takes the model's own settings.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import logging
import os
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Final

from PIL import Image

from segzero_core.checkpoints.description import ModelDescription
from segzero_core.errors import (
    ConfigError,
    ModelLoadError,
    SegZeroError,
    raise_if_cancelled,
    shown,
)
from segzero_core.prompt import build_prompt
from segzero_core.reasoner.base import squash
from segzero_core.reasoner.image_tokens import ImageTokens
from segzero_core.reasoner.server_address import ServerAddress
from segzero_core.reasoner.server_client import (
    BackgroundLoop,
    ServerLimits,
    make_client,
    retry_delay_s,
)
from segzero_core.reasoner.server_reply import END_TAG, ReplyText, ServerError
from segzero_core.reasoner.structured import STRUCTURED, reply_regex
from segzero_core.types import RgbImage

API_KEY_VARIABLE: Final = "SEGZERO_API_KEY"
"""Environment variable with the server's key; it is read when a reasoner is made."""

_LOG: Final = logging.getLogger(__name__)
_CANCEL_CHECK_S: Final = 0.02
_CLOSE_TIMEOUT_S: Final = 2.0
_MAX_MESSAGE_CHARS: Final = 300
# What a server takes beyond the common fields, by the owner that it names in its list of models.
_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "vllm": {
        "stop": [END_TAG],
        "extra_body": {"include_stop_str_in_output": True, "repetition_penalty": 1.0},
    },
    "sglang": {"stop": [END_TAG], "extra_body": {"repetition_penalty": 1.0}},
    "llamacpp": {"stop": [END_TAG], "extra_body": {"repeat_penalty": 1.0}},
}


class RemoteReasoner:
    """A vision-language model behind an OpenAI-compatible server.

    Safe to call from any thread; replies run beside each other. Closing a reply closes its
    connection, by which servers stop generating. `structured` constrains decoding by the server's
    structured output.

    Raises:
        ConfigError: The `openai` package is missing.
    """

    def __init__(
        self,
        address: ServerAddress,
        description: ModelDescription,
        limits: ServerLimits | None = None,
        *,
        structured: bool = False,
    ) -> None:
        self._structured = structured
        self._address, self._description = address, description
        self._limits = limits or ServerLimits()
        self._key = os.environ.get(API_KEY_VARIABLE, "")
        self._client = make_client(address, self._key, self._limits)
        self._known_fields: dict[str, Any] = {}
        self._unchecked: ImageTokens | None = None
        self._loop = BackgroundLoop()
        if self._key and not address.is_private:
            _LOG.warning(
                "the key in %s is sent to %s without encryption; use https",
                API_KEY_VARIABLE,
                address.host,
            )

    @property
    def description(self) -> ModelDescription:
        """How this model is asked."""
        return self._description

    @property
    def address(self) -> ServerAddress:
        """Where it is served."""
        return self._address

    def stream(
        self, image: RgbImage, query: str, *, cancel: threading.Event | None = None
    ) -> Iterator[str]:
        """Generate a reply; see `Reasoner`. A chunk is what the server sends at a time.

        Raises:
            ServerError: The server could not be reached, refused, or broke off.
        """
        asked = self._description.asked(query)
        prompt = build_prompt(self._description.prompt_template, asked)
        seen = squash(image, self._description.seen_size_wh)
        return self._reply(self._messages(seen, prompt), cancel)

    def check(self, tokens: ImageTokens, *, later: bool = False) -> None:
        """Learn which server this is, and whether it sees images at the size they are sent in.

        A server that resizes images in silence moves every box without an error. It is found by
        its own count of the prompt tokens of two images.

        Args:
            tokens: The rule of the model's own processor.
            later: Check a server that cannot be reached now before its first reply.

        Raises:
            ConfigError: Structured output is wanted, and how this server takes it is not known.
            ModelLoadError: The server cannot be reached, does not serve the model, tells no
                token counts, or sees the images at other sizes.
        """
        self._unchecked = tokens
        try:
            self._loop.submit(self._check()).result()
        except ServerError as error:
            if not later:
                raise ModelLoadError(f"{self._address}: {error}") from error
            _LOG.warning("%s; it is checked when it can be reached", error)

    def close(self) -> None:
        """End the thread of the connections; replies in progress are closed."""
        with contextlib.suppress(Exception):
            self._loop.submit(self._client.close()).result(timeout=_CLOSE_TIMEOUT_S)
        self._loop.close()

    def _messages(self, seen: Image.Image, prompt: str) -> list[dict[str, Any]]:
        data = io.BytesIO()
        seen.save(data, "PNG", compress_level=1)
        url = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": prompt},
        ]
        return [{"role": "user", "content": content}]

    def _reply(
        self, messages: list[dict[str, Any]], cancel: threading.Event | None
    ) -> Iterator[str]:
        items: queue.SimpleQueue[str | SegZeroError | None] = queue.SimpleQueue()
        closed = threading.Event()
        raise_if_cancelled(cancel)
        future = self._loop.submit(self._generate(messages, items.put, closed))
        try:
            while True:
                raise_if_cancelled(cancel)
                try:
                    item = items.get(timeout=_CANCEL_CHECK_S)
                except queue.Empty:
                    continue
                if item is None:
                    return
                if isinstance(item, SegZeroError):
                    raise item
                yield item
        finally:
            if not future.done():
                future.cancel()
                closed.wait(_CLOSE_TIMEOUT_S)

    async def _generate(
        self,
        messages: list[dict[str, Any]],
        put: Callable[[str | SegZeroError | None], None],
        closed: threading.Event,
    ) -> None:
        opens = self._description.opens_thinking
        text = ReplyText(self._limits.reply_chars, opens_thinking=opens)
        try:
            async with asyncio.timeout(self._limits.total_s):
                await self._check()
                async for chunk in self._with_retries(messages, text):
                    put(chunk)
            put(None)
        except asyncio.CancelledError:
            raise
        except TimeoutError:
            put(self._error(f"no whole reply within {self._limits.total_s:g} s", text.so_far))
        except SegZeroError as error:
            put(error)
        except Exception as error:
            put(self._error(self._described(error), text.so_far))
        finally:
            closed.set()

    async def _with_retries(
        self, messages: list[dict[str, Any]], text: ReplyText
    ) -> AsyncGenerator[str, None]:
        give_up_at = asyncio.get_running_loop().time() + self._limits.total_s
        for attempt in range(self._limits.retries + 1):
            try:
                async with contextlib.aclosing(self._attempt(messages, text)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except Exception as error:
                delay_s = retry_delay_s(error, attempt)
                if text.so_far or delay_s is None or attempt == self._limits.retries:
                    raise
                if asyncio.get_running_loop().time() + delay_s >= give_up_at:
                    raise
                _LOG.info("%s: %s; asked again", self._address.host, self._described(error))
            await asyncio.sleep(delay_s)

    async def _attempt(
        self, messages: list[dict[str, Any]], text: ReplyText
    ) -> AsyncGenerator[str, None]:
        try:
            async with asyncio.timeout(self._limits.first_token_s) as patience:
                async with contextlib.aclosing(self._events(messages)) as events:
                    async for event in events:
                        for chunk in text.feed(event):
                            loop = asyncio.get_running_loop()
                            patience.reschedule(loop.time() + self._limits.stall_s)
                            yield chunk
                        if text.is_complete:
                            return
        except TimeoutError:
            limit_s = self._limits.stall_s if text.so_far else self._limits.first_token_s
            raise self._error(f"sent nothing for {limit_s:g} s", text.so_far) from None
        for chunk in text.finish():
            yield chunk

    async def _events(self, messages: list[dict[str, Any]]) -> AsyncGenerator[Any, None]:
        stream: Any = await self._client.chat.completions.create(
            model=self._address.served_name,
            messages=messages,  # type: ignore[arg-type]
            stream=True,
            temperature=0,
            top_p=1,
            max_completion_tokens=self._description.max_new_tokens,
            **self._known_fields,
        )
        try:
            kind = str(stream.response.headers.get("content-type", ""))
            if not kind.lower().startswith("text/event-stream"):
                raise self._error(f"sent {shown(kind)} in place of a stream of events")
            async for event in stream:
                yield event
        finally:
            await stream.close()

    async def _check(self) -> None:
        if (tokens := self._unchecked) is None:
            return
        sizes = tokens.probe_sizes(self._description.seen_size_wh)
        await self._recognize_server()
        counts = [await self._count_tokens(size) for size in sizes]
        expected = tokens.count(sizes[0]) - tokens.count(sizes[1])
        found = counts[0] - counts[1]
        if found != expected:
            raise ModelLoadError(
                f"{self._address}: images of {_size(sizes[0])} and {_size(sizes[1])} must differ"
                f" by {expected} prompt tokens, the server counts {found}: it resizes images, and"
                " every box would be wrong. Set its pixel limits to those of the model"
            )
        self._unchecked = None

    async def _count_tokens(self, size: tuple[int, int]) -> int:
        """Return the prompt tokens of a question about a gray image."""
        messages = self._messages(Image.new("RGB", size, (127, 127, 127)), "What is this?")
        for attempt in range(self._limits.retries + 1):
            try:
                async with asyncio.timeout(self._limits.total_s):
                    reply: Any = await self._client.chat.completions.create(
                        model=self._address.served_name,
                        messages=messages,  # type: ignore[arg-type]
                        temperature=0,
                        max_completion_tokens=1,
                    )
                    return int(reply.usage.prompt_tokens)
            except TimeoutError:
                raise self._error(f"no reply within {self._limits.total_s:g} s") from None
            except AttributeError:
                raise self._error(
                    "the server does not tell prompt tokens (`usage`), by which silent resizing"
                    " of images would be found"
                ) from None
            except Exception as error:
                # A kept connection may have been closed by the server in the meantime.
                delay_s = retry_delay_s(error, attempt)
                if delay_s is None or attempt == self._limits.retries:
                    raise self._error(self._described(error)) from None
            await asyncio.sleep(min(delay_s, self._limits.total_s))
        raise AssertionError("the last attempt returns or raises")

    async def _recognize_server(self) -> None:
        """Find out which fields beyond the common ones the server takes.

        A server that is not known gets none: some refuse a request with a field too many, and
        `transformers serve` breaks off at `stop`. The client ends a reply at its answer anyway.
        """
        try:
            async with asyncio.timeout(self._limits.first_token_s):
                models = await self._client.models.list()
            owners = [str(getattr(model, "owned_by", "")) for model in models.data]
        except Exception as error:  # the list is optional; the probe tells what is wrong
            _LOG.info("%s does not list its models: %s", self._address.host, type(error).__name__)
            owners = []
        owner = next((name for name in owners if name in _FIELDS), "")
        self._known_fields = dict(_FIELDS.get(owner, {}))
        if not self._structured:
            return
        if owner not in STRUCTURED:
            raise ConfigError(
                f"grammar: {self._address.host} is none of the servers whose structured output is"
                f" known ({', '.join(STRUCTURED)})"
            )
        fields = STRUCTURED[owner](reply_regex(self._description))
        self._known_fields["extra_body"] = {**self._known_fields["extra_body"], **fields}

    def _error(self, reason: str, completion: str = "") -> ServerError:
        return ServerError(f"server {self._address.host}: {self._redacted(reason)}", completion)

    def _described(self, error: Exception) -> str:
        """Say what happened in one line, without the request and without the key."""
        status = getattr(error, "status_code", None)
        cause = error.__cause__ or error
        body = getattr(error, "body", None)
        reason = str(body) if body else str(cause) or repr(cause)
        text = str(getattr(error, "message", "") or error) if status else reason
        line = " ".join(text.split())[:_MAX_MESSAGE_CHARS]
        if status in (301, 302, 303, 307, 308):
            return f"redirects elsewhere ({status}); redirects are not followed, name the address"
        if status in (401, 403):
            return f"refused the key ({status}); set {API_KEY_VARIABLE}: {line}"
        if status == 404:
            return (
                f"does not serve {shown(self._address.served_name)} at {self._address.url}: {line}"
            )
        return (
            f"answered {status}: {line}" if status else f"cannot be reached or broke off: {line}"
        )

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _size(size_wh: tuple[int, int]) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"
