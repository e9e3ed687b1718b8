"""The page's real server in a thread, with models that say what a test tells them."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from segzero_cli.web.answers import LocalModel
from segzero_cli.web.app import VISITOR_HEADER, make_app
from segzero_cli.web.command import bind
from segzero_core.testing.fakes import fake_segzero
from tests.ros.scripted import TWO_OBJECTS

TIMEOUT_S = 30.0
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium"
)


def png(size_wh: tuple[int, int] = (100, 100), kind: str = "PNG", **options: Any) -> bytes:
    """An encoded image, left half red and right half blue."""
    width, height = size_wh
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 200
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        return json.loads(self.body)["error"]

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        blocks = self.body.decode().strip().split("\n\n")
        return [parse(block) for block in blocks]

    def named(self, name: str) -> list[dict[str, Any]]:
        return [data for each, data in self.events if each == name]


def parse(block: str) -> tuple[str, dict[str, Any]]:
    name, data = block.split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def connect(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        return connection

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        connection = self.connect(method, path, body, **headers)
        try:
            response = connection.getresponse()
            return Reply(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()

    def ask(
        self, query: str = "red", image: bytes | None = None, visitor: str = "a", **more: str
    ) -> Reply:
        path = f"/api/ask?model=scripted&query={query}" + "".join(
            f"&{name}={value}" for name, value in more.items()
        )
        body = png() if image is None else image
        return self.send("POST", path, body, **{VISITOR_HEADER: visitor})


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Serve answerers, or one model that gives fixed replies."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(
        replies: Any = TWO_OBJECTS,
        *,
        examples: dict[str, Any] | None = None,
        delay_s: float = 0.0,
        model: Any = None,
        answerers: dict[str, Any] | None = None,
        port: int = 0,
    ) -> Served:
        model = model or fake_segzero(replies, delay_s=delay_s)
        app = make_app(
            answerers or {"scripted": LocalModel("scripted", {}, model)}, examples or {}
        )
        listening = bind("127.0.0.1", port)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        running.append((server, thread))
        return Served(listening.getsockname()[1])

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(TIMEOUT_S)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="there is no playwright")
    # Playwright's loop stays in this thread; the sandbox needs rights that containers lack.
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--disable-gpu"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open the page as another person, in a browser profile of their own."""
    contexts, faults = [], []

    def note(message: Any) -> None:
        if "Content Security" in message.text:
            faults.append(message.text)

    def open_page(server: Served, context: Any = None, **options: Any) -> Any:
        if context is None:
            context = chromium.new_context(**options)
            context.set_default_timeout(TIMEOUT_S * 1000)
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", note)
        page.goto(server.url)
        page.wait_for_selector("#model option", state="attached")
        return page

    import_module("playwright.sync_api").expect.set_options(timeout=TIMEOUT_S * 1000)
    yield open_page
    for context in contexts:
        context.close()
    assert faults == []
