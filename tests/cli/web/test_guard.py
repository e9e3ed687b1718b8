"""What the page's server refuses to whoever is not the page."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from segzero_cli.web.guard import HEADERS, host_name

EVIL = "http://evil.example"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "a:b:c"]
)
def test_a_name_that_points_here_is_refused(serve: Callable, host: str) -> None:
    reply = serve().send("GET", "/api/info", Host=host)

    assert reply.status == 403
    assert b"--allow-host" in reply.body


@pytest.mark.parametrize("host", ["localhost:80", "127.0.0.1", "[::1]:8321", "LOCALHOST"])
def test_the_own_names_and_addresses_are_served(serve: Callable, host: str) -> None:
    assert serve().send("GET", "/api/info", Host=host).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Origin": EVIL}, id="origin of another page"),
        pytest.param({"Origin": "null"}, id="origin of a file"),
        pytest.param({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, id="fetch"),
        pytest.param({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, id="image"),
    ],
)
def test_requests_of_other_pages_are_refused(serve: Callable, headers: dict[str, str]) -> None:
    reply = serve().send("POST", "/api/image", b"x", **headers)

    assert (reply.status, reply.body) == (403, b"requests of other pages are refused\n")


def test_a_link_on_another_page_opens_the_page(serve: Callable) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}

    assert serve().send("GET", "/", **headers).status == 200


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/api/info", "/api/none", "/page/none"])
def test_every_response_carries_the_headers(serve: Callable, path: str) -> None:
    reply = serve().send("GET", path)

    assert HEADERS.items() <= {name: reply.headers[name.lower()] for name in HEADERS}.items()
    assert "unsafe" not in reply.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/%2e%2e/app.py",
        "/page//etc/passwd",
        "/page/main.js%00",
        "/page/",
        "/api/examples/../../app.py",
        "/api/examples/..%2f..%2fapp.py",
        "/api/camera/../info/none",
    ],
)
def test_no_path_leads_out_of_the_page(serve: Callable, path: str) -> None:
    reply = serve().send("GET", path)

    assert reply.status in (404, 405)
    assert b"import" not in reply.body
    assert b"root:" not in reply.body


@pytest.mark.parametrize(
    ("netloc", "name"),
    [
        ("localhost:8321", "localhost"),
        ("[::1]", "::1"),
        ("a/b", None),
        ("a b?c", None),
        ("[::1", None),
        ("a:99999", None),
    ],
)
def test_the_name_of_a_host_header(netloc: str, name: str | None) -> None:
    assert host_name(netloc) == name
