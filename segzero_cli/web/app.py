"""The page's server: static files, examples, checks of images, and answers as they are made.

A question is one POST whose body is the image and whose response is a stream of server-sent
events. So the server keeps nothing between two questions, and a closed tab cancels its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from segzero_cli.web.answers import Answerer, PageEvent, Question
from segzero_cli.web.desk import Desk
from segzero_cli.web.drawing import draw_answer
from segzero_cli.web.examples import Example
from segzero_cli.web.fair_queue import QueueFullError
from segzero_cli.web.guard import Guard
from segzero_cli.web.uploads import MAX_UPLOAD_BYTES, decode_image, encode_image
from segzero_core.errors import SegZeroError
from segzero_core.images.palette import PALETTE
from segzero_core.limits import USUAL_IMAGE_PX
from segzero_core.prompt import MAX_QUERY_CHARS, clean_query

VISITOR_HEADER: Final = "X-Segzero-Visitor"
"""The page's own id, which no page of another origin can send."""
UPLOAD_TIMEOUT_S: Final = 60.0
UPLOADS_AT_ONCE: Final = 4
"""Images that are received or checked at the same time."""
_MAX_VISITOR_CHARS: Final = 64
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


class RefusedError(Exception):
    """A request that is not answered.

    Args:
        status: Of HTTP.
        message: A sentence for the person at the page.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@cache
def page_files() -> dict[str, Response]:
    """Read the page's files, by name; only these are served, whatever a request names."""
    page = files("segzero_cli.web") / "page"
    responses = {}
    for file in page.iterdir():
        kind = _TYPES.get(file.name[file.name.rfind(".") :])
        if kind is not None:
            responses[file.name] = Response(file.read_bytes(), media_type=kind)
    return responses


def make_app(
    answerers: Mapping[str, Answerer],
    examples: Mapping[str, Example],
    allowed_names: Iterable[str] = (),
) -> Starlette:
    """Make the application.

    Args:
        answerers: By name, the page's choice first.
        examples: By name.
        allowed_names: Of this machine, beside `localhost` and addresses.
    """
    server = PageServer(answerers, examples)
    routes = [
        Route("/", server.page),
        Route("/page/{name}", server.page),
        Route("/api/info", server.info),
        Route("/api/status", server.status),
        Route("/api/examples/{name}", server.example),
        Route("/api/camera/{name:path}", server.camera),
        Route("/api/image", server.check_image, methods=["POST"]),
        Route("/api/drawing", server.drawing, methods=["POST"]),
        Route("/api/ask", server.ask, methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, names=allowed_names)],
        lifespan=server.lifespan,
        exception_handlers={RefusedError: _refuse, SegZeroError: _refuse},
    )


def _refuse(_request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RefusedError) else 400
    if isinstance(error, QueueFullError):
        status = 503
    return JSONResponse({"error": str(error)}, status)


class PageServer:
    """Answers the requests of the page; see `make_app`."""

    def __init__(self, answerers: Mapping[str, Answerer], examples: Mapping[str, Example]) -> None:
        self._desk = Desk(answerers)
        self._examples = dict(examples)
        self._uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Load the first model while the server runs, and close the desk after it."""
        self._desk.prepare()
        yield
        self._desk.close()

    async def page(self, request: Request) -> Response:
        """Give one of the page's files."""
        name = request.path_params.get("name", "index.html")
        response = page_files().get(name)
        if response is None:
            raise RefusedError(404, "the page has no such file")
        return response

    async def info(self, _request: Request) -> Response:
        """Say what does not change while the server runs."""
        return JSONResponse(
            {
                "models": [
                    {"name": each.name, "is_robot": each.is_robot}
                    for each in self._desk.answerers.values()
                ],
                "examples": [
                    {"name": name, **example.record()} for name, example in self._examples.items()
                ],
                "palette": PALETTE,
                "max_upload_bytes": MAX_UPLOAD_BYTES,
                "max_image_px": USUAL_IMAGE_PX,
                "max_query_chars": MAX_QUERY_CHARS,
            }
        )

    async def status(self, _request: Request) -> Response:
        """Say how long the queue is and what each model does."""
        states = {each.name: each.state for each in self._desk.answerers.values()}
        return JSONResponse({"questions": len(self._desk.queue), "states": states})

    async def example(self, request: Request) -> Response:
        """Give an example's image."""
        return Response(self._example(request.path_params["name"]).png, media_type="image/png")

    async def camera(self, request: Request) -> Response:
        """Give the newest image of a robot's camera."""
        robot = self._answerer("/" + request.path_params["name"].lstrip("/"))
        if not robot.is_robot:
            raise RefusedError(404, f"{robot.name} has no camera")
        jpeg = await run_in_threadpool(robot.camera_jpeg)
        return Response(jpeg, media_type="image/jpeg")

    async def check_image(self, request: Request) -> Response:
        """Check an image before it is asked about; with `?as=png` give it back upright.

        Browsers do not show all formats that are read here.
        """
        async with self._uploads:
            data = await _body(request)
            pixels = await run_in_threadpool(decode_image, data)
            if request.query_params.get("as") == "png":
                png = await run_in_threadpool(encode_image, pixels)
                return Response(png, media_type="image/png")
        return JSONResponse({"size_wh": [pixels.shape[1], pixels.shape[0]]})

    async def drawing(self, request: Request) -> Response:
        """Draw an answer that the page sends back; see `draw_answer`."""
        async with self._uploads:
            body = await _body(request)
            png = await run_in_threadpool(draw_answer, body, self._examples)
        return Response(png, media_type="image/png")

    async def ask(self, request: Request) -> Response:
        """Answer one question as a stream of server-sent events."""
        visitor = request.headers.get(VISITOR_HEADER, "")
        if not 0 < len(visitor) <= _MAX_VISITOR_CHARS:
            raise RefusedError(400, f"the header {VISITOR_HEADER} is missing; use the page")
        parameters = request.query_params
        text = clean_query(parameters.get("query", ""))
        answerer = self._answerer(parameters.get("model", ""))
        image: bytes | Example | None = None
        if name := parameters.get("example"):
            image = self._example(name)
        elif parameters.get("camera") is None:
            async with self._uploads:
                image = await _body(request)
        events = self._desk.take(visitor, answerer, Question(text, image))
        return StreamingResponse(_encoded(events), media_type="text/event-stream")

    def _example(self, name: str) -> Example:
        example = self._examples.get(name)
        if example is None:
            raise RefusedError(404, "there is no such example; load the page again")
        return example

    def _answerer(self, name: str) -> Any:
        answerer = self._desk.answerers.get(name)
        if answerer is None:
            known = ", ".join(self._desk.answerers)
            raise RefusedError(
                404, f"there is no such model here, only {known}; load the page again"
            )
        return answerer


async def _encoded(events: AsyncIterator[PageEvent]) -> AsyncIterator[str]:
    async for name, data in events:
        yield f"event: {name}\ndata: {json.dumps(data)}\n\n"


async def _body(request: Request) -> bytes:
    """Receive an image, up to the limit."""
    limit = f"the image has more than {MAX_UPLOAD_BYTES / 1e6:g} MB; send a smaller one"
    # Whoever announces too much is refused before any of it is received.
    if int(request.headers.get("content-length", 0)) > MAX_UPLOAD_BYTES:
        raise RefusedError(413, limit)
    data = bytearray()
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_UPLOAD_BYTES:
                    raise RefusedError(413, limit)
    except TimeoutError:
        raise RefusedError(408, "the image did not arrive in time; send it again") from None
    return bytes(data)
