"""`segzero web` as a process, and what it refuses at its start."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import pytest


def test_it_says_its_address_serves_and_ends_with_ctrl_c() -> None:
    # A model that is nowhere: the page says so, and another can be chosen.
    command = [sys.executable, "-m", "segzero_cli", "web", "--port", "0", "--model", "nowhere"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = re.fullmatch(r"segzero web: (http://127\.0\.0\.1:\d+/)  .*\n", line)[1]
            with urllib.request.urlopen(url, timeout=60) as page:
                assert b"<title>segzero</title>" in page.read()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()

    assert process.returncode == 0
    assert "Traceback" not in errors


def test_a_port_in_use_is_one_line(run: Callable) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run("web", "--port", taken.getsockname()[1])

    assert ran.code == 2
    assert "cannot be served: Address already in use" in ran.err
    assert ran.err.endswith("; choose another --port\n")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("port", ["-1", "70000"])
def test_an_impossible_port_is_refused(run: Callable, port: str) -> None:
    ran = run("web", "--port", port)

    assert (ran.code, ran.out) == (2, "")
    assert "expected 0 to 65535" in ran.err
