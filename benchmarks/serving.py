"""Servers for the benchmarks of a reasoner elsewhere, each in a process of its own.

`transformers serve` with the bundled model, or a scripted server that starts in a moment and takes
a given time for every reply: it answers one request at a time, as a busy GPU would, and counts
what it was asked and what was abandoned.
"""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

from PIL import Image

from segzero_core.checkpoints.registry import bundled_folder
from segzero_core.reasoner.image_tokens import tokens_of_folder

FOLDER: Final = bundled_folder("tabletop") / "reasoner"
REPLY: Final = (
    "<think>The mug is on the left.</think>"
    '<answer>[{"bbox_2d": [20, 20, 60, 70], "point_2d": [40, 45]}]</answer>'
)
_START_TIMEOUT_S: Final = 180.0


class Server:
    """A server that can be killed and started again on the same port.

    Args:
        scripted: The scripted server, in place of `transformers serve`.
        chunk_s: How long the scripted one takes for every four characters [s].
    """

    def __init__(self, *, scripted: bool, chunk_s: float = 0.0) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        served = "tabletop" if scripted else str(FOLDER)
        self.address = f"http://127.0.0.1:{self.port}/v1#{served}"
        if scripted:
            self._command = [sys.executable, __file__, str(self.port), str(chunk_s)]
        else:
            tool = Path(sys.executable).parent / "transformers"
            self._command = [str(tool), "serve", str(FOLDER), "--device", "cpu"]
            self._command += [
                "--dtype",
                "float32",
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
            ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it; return when it was ready, on the monotonic clock [s]."""
        root = str(Path(__file__).parents[1])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up_at = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < give_up_at:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}")
            try:
                self.get("/health")
            except OSError:
                time.sleep(0.02)
            else:
                return time.monotonic()
        raise RuntimeError(f"the server is not ready after {_START_TIMEOUT_S} s")

    def get(self, path: str) -> bytes:
        """Return what stands at a path."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=1.0) as reply:
            return bytes(reply.read())

    def counts(self) -> dict[str, int]:
        """Return what the scripted server was asked, answered and saw abandoned."""
        return dict(json.loads(self.get("/counts")))

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class _Handler(BaseHTTPRequestHandler):
    chunk_s = 0.0
    turn = threading.Lock()
    counts: Final = {"asked": 0, "answered": 0, "abandoned": 0}

    def do_GET(self) -> None:
        if self.path == "/counts":
            self._json(self.counts)
        elif self.path == "/v1/models":
            self._json({"object": "list", "data": [{"id": "tabletop", "object": "model"}]})
        else:
            self._json({"status": "ok"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not asked.get("stream"):
            self._json(_one_token(asked))
            return
        with self.turn:
            self.counts["asked"] += 1
            try:
                self._stream()
                self.counts["answered"] += 1
            except OSError:
                self.counts["abandoned"] += 1

    def _stream(self) -> None:
        self._head("text/event-stream")
        for start in range(0, len(REPLY), 4):
            time.sleep(self.chunk_s)
            self._event(_chunk(REPLY[start : start + 4], None))
        self._event(_chunk("", "stop"))
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()

    def _json(self, body: Any) -> None:
        self._head("application/json")
        self.wfile.write(json.dumps(body).encode())

    def _head(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def _chunk(text: str, finish_reason: str | None) -> dict[str, Any]:
    delta = {"content": text} if text else {}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    fields = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "tabletop"}
    return {**fields, "choices": [choice]}


def _one_token(asked: dict[str, Any]) -> dict[str, Any]:
    """Answer the client's check: with the prompt tokens of its image, as the processor counts."""
    url = asked["messages"][0]["content"][0]["image_url"]["url"]
    size = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size
    rule = tokens_of_folder(FOLDER)
    assert rule is not None
    usage = {"prompt_tokens": 10 + rule.count(size), "completion_tokens": 1, "total_tokens": 0}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "a"},
        "finish_reason": "length",
    }
    fields = {"id": "x", "object": "chat.completion", "created": 0, "model": "tabletop"}
    return {**fields, "choices": [choice], "usage": usage}


class _LoopbackServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    _Handler.chunk_s = float(sys.argv[2])
    _LoopbackServer(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
