"""`segzero web`: a page on this machine that asks a model, or a running node, about an image."""

from __future__ import annotations

import argparse
import socket
import sys
import warnings
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from PIL.Image import DecompressionBombWarning

from segzero_cli import console
from segzero_cli.arguments import Parser, UsageError
from segzero_core.checkpoints.registry import BUNDLED
from segzero_core.errors import ConfigError

DEFAULT_PORT: Final = 8321
_MISSING: Final = "segzero web needs the extra `web`: pip install 'segzero[web]'"


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero web",
        description="Open a page on this machine where a model is asked about images. It works "
        "offline and keeps nothing on disk.",
        examples=[
            "--open",
            "--model libero",
            "--node /segzero --topic /camera/color/image_raw",
        ],
    )
    parser.add_model_arguments()
    parser.add_device_argument()
    parser.add_argument("--backend", default="auto", help="of the image encoder; see docs/cli.md")
    parser.add_argument(
        "--node", metavar="NAME", help="ask this running node, such as /segzero; needs ROS 2"
    )
    parser.add_argument(
        "--topic", default="/image", help="the node's camera, sensor_msgs/Image (default: /image)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to serve (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"default: {DEFAULT_PORT}; 0: any free one"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which this machine may be asked, beside localhost and addresses",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    return parser


def main(argv: Sequence[str]) -> int:
    """Serve the page until it is interrupted; return the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        import uvicorn

        from segzero_cli.web.app import make_app
        from segzero_cli.web.examples import load_examples
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("uvicorn", "starlette", "rosbags"):
            raise
        raise ConfigError(f"{_MISSING} ({error.name} is missing)") from error
    # Larger images are refused with a sentence of our own.
    warnings.simplefilter("ignore", DecompressionBombWarning)
    listening = bind(arguments.host, arguments.port)
    console.quieten_libraries()
    app = make_app(answerers(arguments), load_examples(), arguments.allow_host)
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    print(f"segzero web: {url}  (Ctrl-C ends it)", flush=True)
    if arguments.host not in ("127.0.0.1", "::1", "localhost"):
        print("everybody who reaches this address may ask, without a password", file=sys.stderr)
    if arguments.open:
        webbrowser.open(url)
    # The answers of tabs that are left open need not be waited for.
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    with suppress(KeyboardInterrupt):  # the way to end it
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens; a port in use is one line and not a traceback."""
    if not 0 <= port <= 65_535:
        raise UsageError(f"--port: expected 0 to 65535, got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # It listens at once: a browser that comes before the server is ready waits.
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be served: {error.strerror or error}; choose another --port"
        ) from error


def answerers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return who can be asked, by name: the node or the model that was named, then the bundled."""
    from segzero_cli.web.answers import LocalModel

    first = []
    if arguments.node:
        from segzero_cli.web.robot import Robot

        first = [Robot(arguments.node, arguments.topic)]
    options = {
        "segmenter": arguments.segmenter,
        "device": arguments.device,
        "backend": arguments.backend,
    }
    own = LocalModel(arguments.model, options)
    bundled = [LocalModel(name, {**options, "segmenter": None}) for name in BUNDLED]
    others = [model for model in bundled if model.name != arguments.model]
    return {each.name: each for each in (*first, own, *others)}
