"""Addresses of links are found and asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from tests.setup.scripts import load_script

links = load_script("check_links")


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "page.html").write_text("here")
    with HTTPServer(
        ("127.0.0.1", 0), lambda *request: Handler(*request, directory=str(tmp_path))
    ) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_links_are_found_and_those_of_this_machine_left_out() -> None:
    text = "[a](https://a.org/b#c) <http://b.org> `https://code` [d](d.md) <http://127.0.0.1:8/>"
    assert links.addresses(text) == {"https://a.org/b#c", "http://b.org"}


def test_a_page_that_is_there_has_no_fault(server: str) -> None:
    assert links.fault(f"{server}/page.html") is None


def test_a_page_that_is_missing_is_named_with_the_reason(server: str) -> None:
    assert links.fault(f"{server}/other.html").endswith(
        "/other.html: HTTP Error 404: File not found"
    )


def test_a_server_that_is_away_is_a_fault() -> None:
    assert "refused" in links.fault("http://127.0.0.1:9/")
