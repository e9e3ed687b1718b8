"""Takes questions to the model one at a time, and brings each visitor its own events."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from segzero_cli.web.answers import Answerer, PageEvent, Question
from segzero_cli.web.fair_queue import FairQueue
from segzero_core.errors import CancelledError, SegZeroError

_LOG = logging.getLogger(__name__)
_TURN: Final = "turn"


class Desk:
    """Answers questions in one thread; whoever stops listening cancels the own question only.

    All calls are made in the event loop's thread.
    """

    def __init__(self, answerers: Mapping[str, Answerer]) -> None:
        self.answerers = dict(answerers)  # by name; the first is the page's choice
        self.queue = FairQueue()
        self._pool = ThreadPoolExecutor(1, "answer")
        self._is_closed = False

    def prepare(self) -> None:
        """Begin to load the first answerer, so that the first question need not wait for it."""
        first = next(iter(self.answerers.values()))
        self._pool.submit(self._prepare, first)

    def _prepare(self, answerer: Answerer) -> None:
        try:
            answerer.prepare()
        except Exception as error:  # its state says it, and the first question fails with it
            if not self._is_closed:  # at the end of the process nothing can be loaded
                _LOG.warning("%s cannot be loaded: %s", answerer.name, error)

    def close(self) -> None:
        """Take no more questions; does not wait for the one that runs."""
        self._is_closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def take(
        self, visitor: str, answerer: Answerer, question: Question
    ) -> AsyncIterator[PageEvent]:
        """Put a question into the queue; its events follow until it is answered.

        Closing the iterator, or cancelling who iterates, cancels the question.

        Raises:
            QueueFullError: Too many wait.
        """
        events: asyncio.Queue[PageEvent | None] = asyncio.Queue()

        def on_place(place: int) -> None:
            events.put_nowait(("queued", {"before": place}) if place else (_TURN, {}))

        # Here and not at the first event, so that a full queue is an error of the call.
        leave = partial(self.queue.leave, self.queue.enter(visitor, on_place))
        return self._events(events, leave, answerer, question)

    async def _events(
        self,
        events: asyncio.Queue[PageEvent | None],
        leave: partial[None],
        answerer: Answerer,
        question: Question,
    ) -> AsyncIterator[PageEvent]:
        loop = asyncio.get_running_loop()
        cancel = threading.Event()
        running: asyncio.Future[None] | None = None

        def push(event: PageEvent | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        try:
            while (event := await events.get()) is not None:
                if event[0] != _TURN:
                    yield event
                    continue
                if answerer.state in ("loading", "not loaded"):
                    yield "loading", {"model": answerer.name}
                work = partial(_answer, answerer, question, cancel, push)
                running = loop.run_in_executor(self._pool, work)
                # The turn ends with the work, which a cancellation stops only at the next token.
                running.add_done_callback(lambda _: leave())
        finally:
            cancel.set()
            if running is None:
                leave()


def _answer(
    answerer: Answerer,
    question: Question,
    cancel: threading.Event,
    push: partial[None],
) -> None:
    """Answer one question in the worker's thread; whatever happens becomes an event."""
    try:
        for event in answerer.answer(question, cancel):
            push(event)
    except CancelledError:
        push(("cancelled", {}))
    except SegZeroError as error:
        push(("error", {"message": str(error)}))
    except Exception as error:  # a defect must not end the page
        _LOG.exception("a question failed")
        push(("error", {"message": f"{type(error).__name__}: {error}; the terminal of `segzero "
                        "web` has the traceback"}))  # fmt: skip
    finally:
        push(None)
