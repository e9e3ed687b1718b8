"""The bundled model behind the page. With `-s` it prints the figures that docs/web.md states."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import pytest

from segzero_cli.web.answers import LocalModel
from segzero_cli.web.app import VISITOR_HEADER
from segzero_cli.web.examples import load_examples
from tests.cli.web.conftest import Reply, Served, needs_chromium

PEOPLE = 10

pytestmark = pytest.mark.slow


@pytest.fixture
def bundled(serve: Callable) -> Served:
    model = LocalModel("tabletop", {"device": "cpu"})
    model.prepare()
    return serve(answerers={"tabletop": model}, examples=load_examples())


def ask_example(server: Served, number: int, visitor: str) -> Reply:
    path = f"/api/ask?model=tabletop&query=all+objects&example=tabletop-{number}"
    return server.send("POST", path, **{VISITOR_HEADER: visitor})


@needs_chromium
def test_every_example_is_answered_and_the_one_that_does_not_fit_is_refused(
    bundled: Served, visit: Callable
) -> None:
    expect = import_module("playwright.sync_api").expect
    page = visit(bundled)
    outcomes, delays_ms = [], []
    for button in page.locator("#examples button").all():
        page.evaluate("delete document.documentElement.dataset.firstWordMs")
        button.click()
        expect(page.locator("html")).to_have_attribute("data-first-word-ms", re.compile("."))
        expect(page.locator("#cancel")).to_be_hidden()
        outcomes.append(page.inner_text("#status"))
        delays_ms.append(float(page.locator("html").get_attribute("data-first-word-ms")))
    median = statistics.median(delays_ms)
    print(f"\nfirst word on the page after the core had it: {median} ms, at most {max(delays_ms)}")

    assert all(" found for " in outcome for outcome in outcomes[:-1]), outcomes
    assert outcomes[-1] == "Nothing in the image fits “pick up the smartphone”."


def test_ten_people_at_once_lose_no_answer(bundled: Served) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(PEOPLE) as pool:
        replies = list(
            pool.map(
                lambda person: ask_example(bundled, person % 6 + 1, str(person)), range(PEOPLE)
            )
        )
    print(f"\n{PEOPLE} people at once: all answers after {time.monotonic() - began:.1f} s")

    alone = {number: ask_example(bundled, number, "a").named("done")[0] for number in range(1, 7)}
    for person, reply in enumerate(replies):
        (done,) = reply.named("done")
        own = alone[person % 6 + 1]
        assert (done["completion"], done["objects"]) == (own["completion"], own["objects"])
