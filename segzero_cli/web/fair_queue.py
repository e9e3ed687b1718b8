"""Who is answered next: one question at a time, and visitors take turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from segzero_core.errors import SegZeroError

MAX_WAITING: Final = 32
"""Questions of all visitors; each keeps an encoded image in memory."""
MAX_WAITING_OF_ONE: Final = 4


class QueueFullError(SegZeroError):
    """No more questions are taken for now."""


@dataclass(frozen=True, eq=False)
class Ticket:
    """One question's place."""

    visitor: str  # who asks; visitors take turns
    # Called with the number of questions before this one whenever it changes; 0: it is its turn.
    on_place: Callable[[int], None]


class FairQueue:
    """Gives the turn to one ticket at a time; all calls are made in one thread.

    Who asks five questions waits after the first for one question of each other visitor.
    """

    def __init__(self) -> None:
        self._running: Ticket | None = None
        # A visitor who was served goes to the end of the dictionary.
        self._waiting: dict[str, deque[Ticket]] = {}

    def __len__(self) -> int:
        """How many wait or are being answered."""
        return sum(map(len, self._waiting.values())) + (self._running is not None)

    def enter(self, visitor: str, on_place: Callable[[int], None]) -> Ticket:
        """Take a ticket; its place is reported at once.

        Raises:
            QueueFullError: Too many wait, of all or of this visitor.
        """
        if sum(map(len, self._waiting.values())) >= MAX_WAITING:
            raise QueueFullError(f"{MAX_WAITING} questions wait already; ask again in a minute")
        if len(self._waiting.get(visitor, ())) >= MAX_WAITING_OF_ONE:
            raise QueueFullError(
                f"{MAX_WAITING_OF_ONE} of your questions wait already; wait for an answer or "
                "cancel one"
            )
        ticket = Ticket(visitor, on_place)
        self._waiting.setdefault(visitor, deque()).append(ticket)
        self._serve()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give a ticket back, whether it waits or has its turn."""
        if ticket is self._running:
            self._running = None
        elif ticket in self._waiting.get(ticket.visitor, ()):
            self._remove(ticket)
        self._serve()

    def _remove(self, ticket: Ticket) -> None:
        own = self._waiting[ticket.visitor]
        own.remove(ticket)
        if not own:
            del self._waiting[ticket.visitor]

    def _serve(self) -> None:
        """Give the turn to the next one if it is free, and report all places."""
        if self._running is None and self._waiting:
            visitor = next(iter(self._waiting))
            self._running = self._waiting[visitor][0]
            self._remove(self._running)
            if visitor in self._waiting:
                self._waiting[visitor] = self._waiting.pop(visitor)
            self._running.on_place(0)
        rounds = zip_longest(*self._waiting.values())
        order = [ticket for tickets in rounds for ticket in tickets if ticket is not None]
        for place, ticket in enumerate(order, start=1):
            ticket.on_place(place)
