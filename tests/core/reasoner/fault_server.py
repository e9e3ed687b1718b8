"""A chat-completions server on the loopback whose every answer is a script of a test."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

Script = Callable[["Connection"], None]


def event(content: str = "", finish_reason: str | None = None, **delta: str) -> bytes:
    """One event of a stream."""
    words = {**delta, **({"content": content} if content else {})}
    choice = {"index": 0, "delta": words, "finish_reason": finish_reason}
    return b"data: " + json.dumps(chunk(choices=[choice])).encode() + b"\n\n"


def chunk(**fields: Any) -> dict[str, Any]:
    return {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", **fields}


DONE = b"data: [DONE]\n\n"


@dataclass
class Connection:
    """One request, and the way to answer it."""

    request: dict[str, Any]
    headers: dict[str, str]
    socket: socket.socket
    closed_by_client: threading.Event = field(default_factory=threading.Event)

    def head(self, status: int = 200, kind: str = "text/event-stream", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", "connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def stream(self, texts: Iterable[str], finish_reason: str = "stop") -> None:
        self.head()
        for text in texts:
            self.send(event(text))
        self.send(event(finish_reason=finish_reason) + DONE)

    def json(self, status: int, body: Any, **headers: str) -> None:
        self.head(status, "application/json", **headers)
        self.send(json.dumps(body).encode())

    def wait_until_closed(self, timeout_s: float) -> bool:
        """Say whether the client closes the connection in time."""
        self.socket.settimeout(timeout_s)
        try:
            return self.socket.recv(1) == b""
        except (TimeoutError, ConnectionError) as error:
            return isinstance(error, ConnectionError)


class FaultServer:
    """Answers each request by the next script; the last script serves all that follow."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._scripts = list(scripts)
        self.connections: list[Connection] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone would leave the port open while a thread waits for connections.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            connection.socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            connection = _read(client)
            self.connections.append(connection)
            script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
            script(connection)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the client has gone
        finally:
            client.close()


def _read(client: socket.socket) -> Connection:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(client)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += _some(client)
    return Connection(json.loads(body or b"{}"), headers, client)


def _some(client: socket.socket) -> bytes:
    data = client.recv(65536)
    if not data:
        raise ConnectionError("closed within the request")
    return data


def silent(seconds: float) -> Script:
    """Accept the request and say nothing for a while."""

    def script(connection: Connection) -> None:
        if connection.wait_until_closed(seconds):
            connection.closed_by_client.set()

    return script


def endless(text: str) -> Script:
    """Send text for ever."""

    def script(connection: Connection) -> None:
        connection.head()
        try:
            while True:
                connection.send(event(text))
                time.sleep(0)
        except OSError:
            connection.closed_by_client.set()

    return script
