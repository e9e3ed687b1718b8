"""What every request is checked for, and the headers of every response.

A page on the web may send requests to this machine, or point a name of its own at 127.0.0.1 (DNS
rebinding). The first is refused by `Sec-Fetch-Site` and `Origin`, the second by `Host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def host_name(netloc: str) -> str | None:
    """Return the name in a Host header, without port and brackets; None if it is none."""
    try:
        parts = urlsplit(f"//{netloc}")
        _ = parts.port  # a ValueError if it is no number
    except ValueError:
        return None
    return parts.hostname if parts.netloc == netloc and "@" not in netloc else None


def is_address(name: str) -> bool:
    """Whether a name is an IP address, which nobody can point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Refuses requests that were not made by the own page, and adds the headers.

    Args:
        app: What answers the others.
        names: Names of this machine that are allowed beside `localhost` and addresses.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        reason = self._why_refused(Headers(scope=scope))
        answer = PlainTextResponse(reason, 403) if reason else self._app
        await answer(scope, receive, send_with_headers)

    def _why_refused(self, headers: Headers) -> str:
        netloc = headers.get("host", "")
        name = host_name(netloc)
        if name is None or not (name in self._names or is_address(name)):
            return (
                f"this page is not served under the name {name or netloc!r}; use the address that "
                "`segzero web` printed, or start it with --allow-host NAME\n"
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != netloc:
            return "requests of other pages are refused\n"
        # Of a link on another page ("navigate") only the page itself is fetched.
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        if site in ("cross-site", "same-site") and mode != "navigate":
            return "requests of other pages are refused\n"
        return ""
