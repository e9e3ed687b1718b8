"""Who is answered next."""

from __future__ import annotations

from functools import partial

import pytest

from segzero_cli.web import fair_queue
from segzero_cli.web.fair_queue import FairQueue, QueueFullError, Ticket


class Waiting:
    """A queue whose tickets note the places that they were given."""

    def __init__(self) -> None:
        self.queue = FairQueue()
        self.places: dict[str, list[int]] = {}
        self.tickets: dict[str, Ticket] = {}

    def enter(self, name: str) -> None:
        """`a2` is the second question of visitor a."""
        self.places[name] = []
        self.tickets[name] = self.queue.enter(name[0], self.places[name].append)

    def order(self) -> list[str]:
        """Serve everybody; return the names in their order."""
        served = []
        while current := [name for name, places in self.places.items() if places[-1] == 0]:
            (name,) = current
            served.append(name)
            del self.places[name]
            self.queue.leave(self.tickets[name])
        return served


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def test_the_first_has_its_turn_at_once_and_the_next_know_their_places(waiting: Waiting) -> None:
    for name in ("a1", "b1", "c1"):
        waiting.enter(name)
    waiting.queue.leave(waiting.tickets["a1"])

    assert waiting.places["a1"] == [0]
    assert waiting.places["c1"] == [2, 1]
    assert waiting.places["b1"][-1] == 0


def test_who_asks_much_waits_for_one_question_of_each_other_visitor(waiting: Waiting) -> None:
    for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        waiting.enter(name)

    assert waiting.order() == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


def test_places_say_in_which_order_all_are_served(waiting: Waiting) -> None:
    for name in ("a1", "a2", "a3", "b1", "c1", "c2"):
        waiting.enter(name)
    expected = sorted(waiting.places, key=lambda name: waiting.places[name][-1])

    assert waiting.order() == expected


def test_who_leaves_while_waiting_is_not_served(waiting: Waiting) -> None:
    for name in ("a1", "b1", "c1"):
        waiting.enter(name)
    waiting.queue.leave(waiting.tickets["b1"])
    waiting.queue.leave(waiting.tickets["b1"])  # a second time changes nothing
    del waiting.places["b1"]

    assert waiting.order() == ["a1", "c1"]
    assert len(waiting.queue) == 0


def test_one_visitor_cannot_fill_the_queue(waiting: Waiting) -> None:
    for number in range(fair_queue.MAX_WAITING_OF_ONE + 1):  # the first is served
        waiting.enter(f"a{number}")
    with pytest.raises(QueueFullError, match="of your questions wait already"):
        waiting.enter("a9")
    waiting.enter("b1")

    assert waiting.places["b1"][-1] == 2


def test_a_full_queue_refuses_everybody(waiting: Waiting) -> None:
    for number in range(fair_queue.MAX_WAITING + 1):
        waiting.queue.enter(str(number), partial(lambda _: None))
    with pytest.raises(QueueFullError, match="ask again in a minute"):
        waiting.enter("z1")
